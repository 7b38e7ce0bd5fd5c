"""Is there an answer worth the name in what was timed?"""

from __future__ import annotations

from redline.analyse.case import Case, Rule, Said
from redline.analyse.embedding import embeddings

_FEW = 10
_ALL = 0.9


def one_token_answers(case: Case) -> Said:
    """Answers may end early where that was allowed; that nearly all of them end at once is a broken set-up."""
    good = case.good
    asked = (good.asked_output_tokens > 1) & (good.output_tokens > 0) & ~embeddings(good)
    if case.exact_output or asked.sum() < _FEW:
        return None
    tiny = (good.output_tokens[asked] == 1).mean()
    if tiny < _ALL:
        return None
    return "invalid", (
        f"{tiny:.0%} of the answers are one token long, where up to {good.asked_output_tokens[asked].max()} were "
        "asked for: something ends every answer at once"
    )


RULES: tuple[Rule, ...] = (one_token_answers,)
