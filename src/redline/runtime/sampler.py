"""Choosing tokens from logits, for the CPU and as the oracle of faster ways; works on tensors of any device.

The order is the one that vLLM documents: raw log-probabilities are told; then grammar, logit bias, `min_tokens`,
repetition, frequency and presence penalties change the logits; then temperature, min-p, top-k, top-p, and the draw by
inverse CDF with one number per row (`draws.py`). Ties go to the lower id everywhere, so top-k 1 is greedy and a top-k
set has exactly k tokens. A temperature below 1e-5 is greedy, as in vLLM.

Nothing here changes the logits given, nor leaves a matcher advanced: who appends a token to a request advances it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from redline.runtime.draws import Purpose, draws, uniform
from redline.runtime.edits import edited, empty_mask, words
from redline.runtime.filters import filtered, filters
from redline.runtime.penalties import Counts, counts, penalises
from redline.runtime.ranking import best, pick, top
from redline.runtime.request import Matcher, Sampling, TokenLogprob

GREEDY_BELOW = 1e-5
AT_ONCE = 1 << 20
"""Logits that a CPU works on at once: more of them, times the copies on the way, leave its cache."""
NAN = "nan"
GRAMMAR = "grammar"
T = TypeVar("T")
NOTHING = -1
"""The token of a row whose logits were of no use."""


@dataclass(eq=False)
class Row:
    """A place where a token is to be chosen: after `tokens`, then after `draft`, which is taken as accepted.

    Kept from step to step (`tokens` may be the request's own list), it remembers what it counted for penalties.
    """

    sampling: Sampling
    tokens: Sequence[int]
    prompt_len: int
    matcher: Matcher | None = None
    draft: tuple[int, ...] = ()
    counts: Counts | None = field(default=None, repr=False)
    mask: np.ndarray | None = field(default=None, repr=False)
    """The grammar's mask at this place, uint32 words, where it is known already."""

    @property
    def position(self) -> int:
        """Of the token to be chosen, in the sequence."""
        return len(self.tokens) + len(self.draft)

    @property
    def generated(self) -> int:
        return self.position - self.prompt_len

    @property
    def greedy(self) -> bool:
        return self.sampling.temperature < GREEDY_BELOW


class Drawn(NamedTuple):
    """`fault` is `nan` when the row had a NaN, an infinity or nothing to choose from, and `grammar` when the grammar
    allowed nothing, having hit a limit; then `token` is -1."""

    token: int
    logprob: TokenLogprob | None = None
    fault: str = ""


def sample(logits: torch.Tensor, rows: Sequence[Row], purpose: Purpose = Purpose.TOKEN) -> list[Drawn]:
    """One token per row. `logits` [R, V] float32."""
    at_once = max(1, AT_ONCE // logits.shape[-1])
    if len(rows) > at_once and logits.device.type == "cpu":
        parts = range(0, len(rows), at_once)
        return [one for i in parts for one in sample(logits[i : i + at_once], rows[i : i + at_once], purpose)]
    if all(row.sampling.plain_greedy and row.matcher is None for row in rows):
        return [Drawn(token, None, "" if token >= 0 else NAN) for token in _arg_max(logits)]
    return _told(logits, rows, choose(edited(logits, rows), rows, purpose))


def choose(logits: torch.Tensor, rows: Sequence[Row], purpose: Purpose) -> list[int]:
    """Tokens from logits that were edited already; -1 where nothing can be chosen. `logits` [R, V] float32."""
    tokens = [NOTHING] * len(rows)
    greedy = [i for i, row in enumerate(rows) if row.greedy]
    plain = [i for i, row in enumerate(rows) if not row.greedy and not filters(row.sampling)]
    narrow = [i for i, row in enumerate(rows) if not row.greedy and filters(row.sampling)]
    if greedy:
        _put(tokens, greedy, _arg_max(_part(logits, greedy)))
    if plain:
        weights = torch.softmax(scaled(logits, rows, plain), -1)
        _put(tokens, plain, _draw(weights, None, [rows[i] for i in plain], purpose))
    if narrow:
        for kept in filtered(scaled(logits, rows, narrow), [rows[i].sampling for i in narrow]):
            at = [narrow[place] for place in kept.rows]
            _put(tokens, at, _draw(kept.weights, kept.ids, [rows[i] for i in at], purpose))
    return tokens


def distribution(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """What each row draws from. [R, V] float32 -> [R, V] float64, sums 1; a row that cannot be drawn from is NaN."""
    logits = edited(logits, rows)
    probs = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device)
    found = _arg_max(logits)
    for i, row in enumerate(rows):
        if row.greedy and found[i] >= 0:
            probs[i, found[i]] = 1
    sampled = [i for i, row in enumerate(rows) if not row.greedy]
    plain = [i for i in sampled if not filters(rows[i].sampling)]
    narrow = [i for i in sampled if filters(rows[i].sampling)]
    if plain:
        probs[plain] = torch.softmax(scaled(logits, rows, plain).to(torch.float64), -1)
    if narrow:
        for kept in filtered(scaled(logits, rows, narrow), [rows[i].sampling for i in narrow]):
            at = [narrow[place] for place in kept.rows]
            weights = kept.weights / kept.weights.sum(-1, keepdim=True)
            probs[at] = torch.zeros_like(probs[at]).scatter_(-1, kept.ids, weights)
    probs[[i for i, token in enumerate(found) if token < 0]] = float("nan")
    return probs


def scaled(logits: torch.Tensor, rows: Sequence[Row], at: list[int]) -> torch.Tensor:
    """Logits over temperature of some rows."""
    part = _part(logits, at)
    temperatures = [rows[i].sampling.temperature for i in at]
    if all(value == 1 for value in temperatures):
        return part
    return part / torch.tensor(temperatures, dtype=logits.dtype, device=logits.device)[:, None]


def _told(logits: torch.Tensor, rows: Sequence[Row], tokens: Sequence[int]) -> list[Drawn]:
    """With the raw log-probabilities of the chosen tokens and of the rows' best, where asked for. `logits` [R, V]."""
    told: list[TokenLogprob | None] = [None] * len(rows)
    asked = [i for i, row in enumerate(rows) if row.sampling.logprobs is not None and tokens[i] >= 0]
    if asked:
        most = [rows[i].sampling.logprobs or 0 for i in asked]
        _put(told, asked, _logprobs(_part(logits, asked), [tokens[i] for i in asked], most))
    vocab = logits.shape[-1]
    return [
        Drawn(token, logprob, "" if token >= 0 else _fault(row, vocab))
        for row, token, logprob in zip(rows, tokens, told, strict=True)
    ]


def _fault(row: Row, vocab: int) -> str:
    return GRAMMAR if row.matcher is not None and not words(row, vocab).any() else NAN


def prompt_logprobs(logits: torch.Tensor, targets: Sequence[int], top: int) -> list[TokenLogprob]:
    """Log-probabilities of the tokens that did follow. `logits` [T, V]; `targets` the next token of each."""
    return _logprobs(logits, targets, [top] * len(targets)) if targets else []


def verify(
    logits: torch.Tensor, row: Row, draft: Sequence[int], draft_probs: torch.Tensor | None = None
) -> list[Drawn]:
    """The guessed tokens that stand, and one more; `verify_all` of one request. `logits` [k + 1, V]."""
    return verify_all(logits, [row], [draft], [draft_probs])[0]


def verify_all(
    logits: torch.Tensor,
    rows: Sequence[Row],
    drafts: Sequence[Sequence[int]],
    draft_probs: Sequence[torch.Tensor | None] | None = None,
) -> list[list[Drawn]]:
    """For each request the guessed tokens that stand, and one more, with the distribution that no guess would give.

    `logits` [sum of (k + 1), V], request after request; a request may have no draft. Nothing comes after a token that
    ends the answer, nor after a fault. `draft_probs` [k, V] is what a draft was drawn from: then the rejection rule of
    speculative sampling (Leviathan et al., 2023) holds. Without it, or greedy, each place chooses as it would have
    chosen alone, with the number of its position, and a guess stands when it is what was chosen: as likely accepted
    as the rule accepts a guess without a distribution, and the text is the one that no speculation gives.
    """
    vocab = logits.shape[-1]
    unrolled = [_unrolled(row, draft, vocab) for row, draft in zip(rows, drafts, strict=True)]
    firsts = np.cumsum([0, *(len(draft) + 1 for draft in drafts)]).tolist()
    probs = draft_probs or [None] * len(rows)
    drawn: list[list[Drawn]] = [[] for _ in rows]
    ruled = [i for i, row in enumerate(rows) if probs[i] is not None and len(drafts[i]) and not row.greedy]
    for group, rule in ((sorted({*range(len(rows))} - {*ruled}), _agreed), (ruled, _rejected)):
        at = [firsts[i] + place for i in group for place in range(len(unrolled[i]))]
        if at:
            places, guesses = [unrolled[i] for i in group], [drafts[i] for i in group]
            _put(drawn, group, rule(_part(logits, at), places, guesses, [probs[i] for i in group]))
    return drawn


def _unrolled(row: Row, draft: Sequence[int], vocab: int) -> list[Row]:
    """The row's places as the guesses are accepted one by one, as far as any may be."""
    reach = next((i for i, token in enumerate(draft) if token in row.sampling.stop_ids), len(draft))
    if penalises(row.sampling):
        counts(row)
    matcher = row.matcher
    if matcher is None:
        return [_after(row, draft[:i], None) for i in range(reach + 1)]
    reach = min(reach, matcher.allowed(draft[:reach]))
    places = []
    for i in range(reach + 1):
        mask = empty_mask(vocab)
        matcher.fill(mask.data)
        places.append(_after(row, draft[:i], mask))
        if i < reach:
            matcher.advance(draft[i])
    matcher.rollback(reach)
    return places


def _after(row: Row, draft: Sequence[int], mask: np.ndarray | None) -> Row:
    return Row(row.sampling, row.tokens, row.prompt_len, row.matcher, tuple(draft), row.counts, mask)


def _agreed(
    logits: torch.Tensor,
    unrolled: Sequence[list[Row]],
    drafts: Sequence[Sequence[int]],
    probs: Sequence[torch.Tensor | None],
) -> list[list[Drawn]]:
    """Every place chooses for itself; what it chose counts up to the first place that did not choose the guess."""
    chosen = iter(sample(logits, [place for places in unrolled for place in places]))
    drawn = []
    for places, draft in zip(unrolled, drafts, strict=True):
        own = [next(chosen) for _ in places]
        missed = next((i for i, token in enumerate(draft[: len(own)]) if own[i].token != token), len(own) - 1)
        drawn.append(own[: missed + 1])
    return drawn


def _rejected(
    logits: torch.Tensor,
    unrolled: Sequence[list[Row]],
    drafts: Sequence[Sequence[int]],
    probs: Sequence[torch.Tensor | None],
) -> list[list[Drawn]]:
    """The rejection rule: a guess stands with p/q; where it falls, the token comes from what p has more than q."""
    p = distribution(logits, [place for places in unrolled for place in places])
    guesses = [list(draft[: len(places)]) for places, draft in zip(unrolled, drafts, strict=True)]
    q = torch.cat([other[: len(own)].to(p) for own, other in zip(guesses, probs, strict=True) if other is not None])
    firsts = np.cumsum([0, *(len(places) for places in unrolled)]).tolist()
    known = np.cumsum([0, *(len(own) for own in guesses)]).tolist()
    at = [first + i for first, own in zip(firsts, guesses, strict=False) for i in range(len(own))]
    chosen = torch.tensor([token for own in guesses for token in own], device=p.device)[:, None]
    pairs = torch.cat([p[at].gather(-1, chosen), q.gather(-1, chosen)], -1).tolist()
    counts = [_standing(pairs[known[i] : known[i + 1]], places) for i, places in enumerate(unrolled)]
    tokens = [own[:count] for own, count in zip(guesses, counts, strict=True)]
    ends = [i for i, places in enumerate(unrolled) if counts[i] < len(places)]
    weights = p[[firsts[i] + counts[i] for i in ends]]
    fallen = [place for place, i in enumerate(ends) if counts[i] < len(guesses[i])]
    if fallen:
        rest = (weights[fallen] - q[[known[ends[place]] + counts[ends[place]] for place in fallen]]).clamp_(min=0)
        # Nothing rests where p and q are the same up to rounding.
        weights[fallen] = torch.where(rest.sum(-1, keepdim=True) > 0, rest, weights[fallen])
    if ends:
        last = [unrolled[i][counts[i]] for i in ends]
        for i, token in zip(ends, _draw(weights, None, last, Purpose.RESIDUAL), strict=True):
            tokens[i].append(token)
    return _split(logits, unrolled, tokens)


def _standing(pairs: Sequence[Sequence[float]], places: Sequence[Row]) -> int:
    """How many guesses stand, given (p, q) of each."""
    for i, (own, other) in enumerate(pairs):
        number = uniform(places[i].sampling.seed, places[i].position, Purpose.ACCEPT)
        # Written so that a NaN falls.
        if not number * other < own:
            return i
    return len(pairs)


def _split(logits: torch.Tensor, unrolled: Sequence[list[Row]], tokens: Sequence[list[int]]) -> list[list[Drawn]]:
    """Each request's tokens with their log-probabilities. `logits` [places of all requests, V]."""
    padded = [token for places, own in zip(unrolled, tokens, strict=True) for token in _pad(own, len(places))]
    told = iter(_told(logits, [place for places in unrolled for place in places], padded))
    every = [[next(told) for _ in places] for places in unrolled]
    return [drawn[: len(own)] for drawn, own in zip(every, tokens, strict=True)]


def _pad(tokens: list[int], length: int) -> list[int]:
    return [*tokens, *[NOTHING] * (length - len(tokens))]


def _logprobs(logits: torch.Tensor, tokens: Sequence[int], wanted: Sequence[int]) -> list[TokenLogprob]:
    norm = logits.logsumexp(-1, keepdim=True)
    chosen = torch.tensor(list(tokens), device=logits.device)[:, None]
    own = (logits.gather(-1, chosen) - norm).squeeze(-1).tolist()
    most = min(max(wanted), logits.shape[-1])
    if not most:
        return [TokenLogprob(token, logprob, ()) for token, logprob in zip(tokens, own, strict=True)]
    values, ids = top(logits, most)
    ranked = [tuple(zip(*pair, strict=True)) for pair in zip(ids.tolist(), (values - norm).tolist(), strict=True)]
    return [
        TokenLogprob(token, logprob, alternatives[:count])
        for token, logprob, alternatives, count in zip(tokens, own, ranked, wanted, strict=True)
    ]


def _arg_max(logits: torch.Tensor) -> list[int]:
    values, ids = best(logits)
    # One transfer for both: on a GPU each costs a synchronisation.
    found = torch.where(values.isfinite(), ids, NOTHING)
    return found.tolist()


def _draw(weights: torch.Tensor, ids: torch.Tensor | None, rows: Sequence[Row], purpose: Purpose) -> list[int]:
    numbers = draws([row.sampling.seed for row in rows], [row.position for row in rows], purpose, weights.device)
    places = pick(weights, numbers)
    # A NaN in the logits, or nothing but -inf, makes every weight NaN.
    useless = weights[:, 0].isnan()
    tokens = places if ids is None else ids.gather(-1, places[:, None]).squeeze(-1)
    return torch.where(useless, NOTHING, tokens).tolist()


def _part(logits: torch.Tensor, at: list[int]) -> torch.Tensor:
    if len(at) == logits.shape[0]:
        return logits
    return logits.index_select(0, torch.tensor(at, device=logits.device))


def _put(into: list[T], at: list[int], values: Sequence[T]) -> None:
    for i, value in zip(at, values, strict=True):
        into[i] = value
