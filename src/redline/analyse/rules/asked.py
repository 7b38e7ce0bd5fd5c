"""What was asked against what was had: lengths, load, token counts."""

from __future__ import annotations

import math

import numpy as np

from redline.analyse.case import Case, Rule, Said
from redline.analyse.rules.traffic import spread_of, traffic_of
from redline.analyse.stages import UNSTEADY


def wrong_length(case: Case) -> Said:
    """Answers of another length are other work: one in a hundred is worth a word, 5 % of all tokens are too many."""
    good = case.good
    known = (good.asked_output_tokens > 0) & (good.output_tokens > 0) & (good.token_source != "chunks")
    asked, got = good.asked_output_tokens[known], good.output_tokens[known]
    off = got != asked if case.exact_output else got > asked
    if len(asked) == 0 or off.mean() <= 0.01:
        return None
    beyond = got.sum() - asked.sum() if case.exact_output else np.maximum(got - asked, 0).sum()  # may end early
    state = "invalid" if abs(beyond) > 0.05 * asked.sum() else "degraded"
    return state, (
        f"output length not as asked in {off.mean():.0%} of the answers: {got.mean():.1f} tokens on average "
        f"instead of {asked.mean():.1f}"
    )


def load_not_reached(case: Case) -> Said:
    """Nine tenths of the clients or of the rate asked for have to be there; a Poisson stream may miss it by chance."""
    if case.asked is None or len(case.latencies) == 0:
        return None
    kind, asked = case.asked
    if kind in UNSTEADY or "sessions" in traffic_of(case.outcome):
        return None  # rules of their own look at parts of a load; and clients who think are not in flight
    got = case.in_flight if kind == "closed" else case.sent_per_s
    # a random stream misses its rate by chance: allow two standard deviations
    chance = 2 * spread_of(case, kind) / math.sqrt(max(asked * case.window.seconds, 1))
    if math.isnan(got) or got >= asked * (0.9 - chance):
        return None
    what = f"{got:.1f} in flight instead of {asked:g}" if kind == "closed" else f"{got:.2f} req/s instead of {asked:g}"
    return "degraded", f"the load asked for was not reached: {what}"


def guessed_tokens(case: Case) -> Said:
    """Nobody counted the tokens of more than a hundredth of the answers: one per chunk is a guess."""
    good = case.good
    share = float((good.token_source == "chunks").mean()) if len(good) else 0.0
    if share <= 0.01:
        return None
    return "degraded", f"tokens are a guess in {share:.0%} of the answers: one per chunk, nobody counted them"


def prompts_off(case: Case) -> Said:
    """Prompts that are more than 2 % longer or shorter than asked, in more than a hundredth of the requests."""
    good = case.good
    known = (good.asked_prompt_tokens > 0) & (good.prompt_tokens > 0)
    asked, got = good.asked_prompt_tokens[known], good.prompt_tokens[known]
    off = int((abs(got - asked) > np.maximum(1, 0.02 * asked)).sum())
    if len(asked):
        many = off / len(asked) > 0.01
        text = f"prompt length not as asked in {off} of {len(asked)} requests: {got.mean():.0f} tokens on average"
        return ("degraded", f"{text} instead of {asked.mean():.0f}") if many else None
    told = case.number("prompts_off")
    if told > 0:
        return "degraded", f"{told:.0f} prompts could not be made exactly as long as asked"
    return None


RULES: tuple[Rule, ...] = (
    wrong_length,
    load_not_reached,
    guessed_tokens,
    prompts_off,
)
