"""The best of a row, ties by the lower id. torch leaves the order of ties open, and a replay must not."""

from __future__ import annotations

import torch

BLOCK = 256
"""On a CPU a row is first reduced by blocks of so many: torch vectorises that, and not an arg max or a running sum."""
LARGE = 8192
"""Entries of a row from which blocks pay."""


def best(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Greatest value and its lowest index per row. [R, V] -> [R], [R] int64. A row with a NaN has the value NaN."""
    if not in_blocks(x):
        values, ids = x.max(-1)
        return values, ids
    parts = x.view(x.shape[0], -1, BLOCK)
    values, block = parts.amax(-1).max(-1)
    inside = parts.gather(1, block.view(-1, 1, 1).expand(-1, 1, BLOCK)).squeeze(1).argmax(-1)
    return values, block * BLOCK + inside


def in_blocks(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.shape[-1] >= LARGE and x.shape[-1] % BLOCK == 0 and x.is_contiguous()


def top(x: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` greatest per row, by value descending, then by id. [R, V] -> [R, count], [R, count] int64.

    Entries of -inf may come in any order, and a NaN comes first.
    """
    if count >= x.shape[-1]:
        values, ids = torch.sort(x, dim=-1, descending=True, stable=True)
        return values, ids
    values, ids = x.topk(count + 1, dim=-1)
    same = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] > float("-inf"))
    if not bool(same.any()):
        return values[:, :count], ids[:, :count]
    for row in same[:, -1].nonzero().flatten().tolist():
        _settle(x[row], values[row], ids[row], count)
    ids, order = ids[:, :count].sort(dim=-1)
    values, order = torch.sort(values[:, :count].gather(-1, order), dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def _settle(x: torch.Tensor, values: torch.Tensor, ids: torch.Tensor, count: int) -> None:
    """A tie crosses the border of the `count` greatest: the lowest ids of those that tie are the ones inside."""
    border = values[count]
    greater = int((values[:count] > border).sum())
    ids[greater:count] = (x == border).nonzero().flatten()[: count - greater]


def pick(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draws by inverse CDF. Weights [R, V], not negative, any total; numbers in [0, 1) float64 [R] -> [R] int64.

    Sums are in float64. An entry of weight 0 is never drawn; a row with a NaN or without weight gives nonsense.
    """
    if in_blocks(weights):
        parts = weights.view(weights.shape[0], -1, BLOCK)
        sums = parts.sum(-1, dtype=torch.float64).cumsum(-1)
        target = uniform * sums[:, -1]
        block = _search(sums, target)
        target = target - sums.gather(-1, (block - 1).clamp(min=0)[:, None]).squeeze(-1) * (block > 0)
        weights = parts.gather(1, block.view(-1, 1, 1).expand(-1, 1, BLOCK)).squeeze(1)
        sums = weights.cumsum(-1, dtype=torch.float64)
        # Two ways of adding up differ in the last bit, and the target must lie inside the block.
        target = torch.minimum(target, sums[:, -1] * (1 - 2.0**-52))
        return block * BLOCK + _search(sums, target)
    sums = weights.cumsum(-1, dtype=torch.float64)
    return _search(sums, uniform * sums[:, -1])


def _search(sums: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    found = torch.searchsorted(sums, target[:, None], right=True).squeeze(-1)
    return found.clamp_(max=sums.shape[-1] - 1)
