"""min-p, top-k and top-p: which tokens of a row may be drawn, and with what weight.

In the order (probability descending, id ascending) each of the three keeps a prefix, so the best few hundred tokens
are nearly always enough; a row that needs more is looked at again with more. How many are looked at depends on the row
alone, so a row draws the same in every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from redline.runtime.ranking import top
from redline.runtime.request import Sampling

WIDTHS = (24, 60, 512, 4096)
"""Tokens looked at; after these comes the whole vocabulary. On a CPU `topk` is quick up to 1/64 of the row."""


class Kept(NamedTuple):
    """Of `rows` (indices): `ids` int64 and `weights` float64, both [rows, width]; weight 0 where filtered away.

    A row whose logits have a NaN, or only -inf, has NaN weights.
    """

    rows: list[int]
    ids: torch.Tensor
    weights: torch.Tensor


def filters(s: Sampling) -> bool:
    return s.top_k > 0 or s.top_p < 1 or s.min_p > 0


def filtered(x: torch.Tensor, asked: Sequence[Sampling]) -> Iterator[Kept]:
    """`x` [R, V]: logits over temperature. Every row comes exactly once."""
    vocab = x.shape[-1]
    waiting = list(range(len(asked)))
    for width in (*(w for w in WIDTHS if w < vocab), vocab):
        now = [i for i in waiting if not width < asked[i].top_k < vocab]
        if not now:
            continue
        part = x if len(now) == x.shape[0] else x.index_select(0, torch.tensor(now, device=x.device))
        ids, weights, whole = _prefix(part, [asked[i] for i in now], width)
        done = [place for place, is_whole in enumerate(whole) if is_whole]
        if len(done) < len(now):
            keep = torch.tensor(done, device=x.device, dtype=torch.int64)
            ids, weights = ids.index_select(0, keep), weights.index_select(0, keep)
        if done:
            yield Kept([now[place] for place in done], ids, weights)
        gone = {now[place] for place in done}
        waiting = [i for i in waiting if i not in gone]
        if not waiting:
            return


def _prefix(x: torch.Tensor, asked: Sequence[Sampling], width: int) -> tuple[torch.Tensor, torch.Tensor, list[bool]]:
    """Ids, weights and, per row, whether what it may draw lies within the best `width`."""
    vocab = x.shape[-1]
    values, ids = top(x, width)
    weights = (values - values[:, :1]).to(torch.float64).exp_()
    limits = [s.top_k if 0 < s.top_k < vocab else vocab for s in asked]
    keep = torch.arange(width, device=x.device) < torch.tensor(limits, device=x.device)[:, None]
    if any(s.min_p > 0 for s in asked):
        keep &= weights >= _column([s.min_p for s in asked], x)
    if any(s.top_p < 1 for s in asked):
        inside = (weights * keep).cumsum(-1)
        total = inside[:, -1]
        if any(limit == vocab and s.top_p < 1 for limit, s in zip(limits, asked, strict=True)):
            free = torch.tensor([limit == vocab for limit in limits], device=x.device)
            total = torch.where(free, _total(x, values[:, :1], asked), total)
        before = inside - weights * keep
        keep &= before < _column([s.top_p if s.top_p < 1 else 2.0 for s in asked], x) * total[:, None]
        keep[:, 0] = True
    if width == vocab:
        whole = [True] * len(asked)
    else:
        open_ended = keep[:, -1].tolist()
        # A row without a number has no prefix, and is told by its weights.
        whole = [limit <= width or not more for limit, more in zip(limits, open_ended, strict=True)]
    return ids, weights.masked_fill_(~keep & ~weights.isnan(), 0.0), whole


def _total(x: torch.Tensor, greatest: torch.Tensor, asked: Sequence[Sampling]) -> torch.Tensor:
    """Weight of all that min-p keeps, the greatest token's being 1. float64 [R]."""
    if any(s.min_p > 0 for s in asked):
        floor = _column([s.min_p for s in asked], x)
        x = torch.where((x - greatest).to(torch.float64).exp_() >= floor, x, float("-inf"))
    return 1 / torch.softmax(x, -1).amax(-1).to(torch.float64)


def _column(numbers: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=like.device)[:, None]
