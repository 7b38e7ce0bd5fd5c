"""Tier T0: plain torch. It is what a CPU runs, and what the other tiers are compared with.

Attention gathers each sequence's pages. Decodes fold the query heads of one key head into the sequence axis, which is
several times quicker on a CPU than `enable_gqa`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812

from redline.runtime.batch import Batch
from redline.runtime.kernels import KV
from redline.runtime.linear import Weight


class _Sequence(NamedTuple):
    """One sequence's tokens in the batch, [first, last), which end its context of `context` tokens.

    `page` is the first of its pages where they lie one after the other, so that its K and V need no gathering.
    """

    first: int
    last: int
    context: int
    pages: torch.Tensor
    page: int | None


class _Plan(NamedTuple):
    """What all layers need of one batch, made once. `cos` and `sin` [T, 1, D] are laid out for `_rotate`."""

    batch: Batch
    cos: torch.Tensor
    sin: torch.Tensor
    sequences: list[_Sequence]
    masks: dict[tuple[int, int | None], torch.Tensor]


class TorchKernels:
    """See `Kernels`. Reads lengths on the host (`batch.host_*`, or by copying them), so no graph can hold it."""

    name = "torch"

    def __init__(self) -> None:
        self._plan: _Plan | None = None

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, eps)

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        residual = residual.add_(x)
        return self.rms_norm(residual, weight, eps), residual

    def rope_append(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos_sin: torch.Tensor, batch: Batch, kv: KV
    ) -> torch.Tensor:
        if self._plan is None or self._plan.batch is not batch:
            self._plan = _make_plan(batch, cos_sin, kv[0].shape[1])
        cos, sin, (heads, dim) = self._plan.cos, self._plan.sin, k.shape[1:]
        keys, values = kv
        keys.view(-1, heads, dim).index_copy_(0, batch.slots, _rotate(k, cos, sin).to(keys.dtype))
        values.view(-1, heads, dim).index_copy_(0, batch.slots, v.to(values.dtype))
        return _rotate(q, cos, sin)

    def attention(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        plan = self._plan
        if plan is None or plan.batch is not batch:
            plan = self._plan = _make_plan(batch, None, kv[0].shape[1])
        parts = [
            _one(q[s.first : s.last], kv, s, scale, window)
            if s.last - s.first == 1
            else _chunk(q[s.first : s.last], kv, s, scale, window, plan)
            for s in plan.sequences
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def silu_mul(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return F.silu(gate).mul_(up)

    def linear(self, x: torch.Tensor, weight: Weight) -> torch.Tensor:
        return weight.apply(x)


def _make_plan(batch: Batch, cos_sin: torch.Tensor | None, page_size: int) -> _Plan:
    starts = batch.host_starts if batch.host_starts is not None else batch.starts.tolist()
    lengths = batch.host_seq_lens if batch.host_seq_lens is not None else batch.seq_lens.tolist()
    sequences = []
    for row, (table, length) in enumerate(zip(batch.page_tables, lengths, strict=True)):
        pages = table[: -(-length // page_size)]
        ids = pages.tolist()
        adjacent = all(b - a == 1 for a, b in pairwise(ids))
        sequences.append(_Sequence(starts[row], starts[row + 1], length, pages, ids[0] if adjacent else None))
    if cos_sin is None:
        none = torch.empty(0)
        return _Plan(batch, none, none, sequences, {})
    cos, sin = cos_sin.index_select(0, batch.positions)[:, None].chunk(2, -1)
    return _Plan(batch, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1), sequences, {})


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x · (cos, cos) + (second half, first half) · (-sin, sin)."""
    tokens, heads, dim = x.shape
    swapped = x.reshape(tokens, heads, 2, dim // 2).flip(2).view(tokens, heads, dim)
    return torch.addcmul(x * cos, swapped, sin).to(x.dtype)


def _context(side: torch.Tensor, sequence: _Sequence, start: int, dtype: torch.dtype) -> torch.Tensor:
    """K or V of the sequence from position `start` on, [context - start, K, D]."""
    page_size, heads, dim = side.shape[1:]
    if sequence.page is not None:
        found = side.view(-1, heads, dim).narrow(0, sequence.page * page_size + start, sequence.context - start)
    else:
        skipped = start // page_size
        gathered = side.index_select(0, sequence.pages[skipped:] if skipped else sequence.pages).view(-1, heads, dim)
        found = gathered.narrow(0, start - skipped * page_size, sequence.context - start)
    return found if found.dtype == dtype else found.to(dtype)


def _one(q: torch.Tensor, kv: KV, sequence: _Sequence, scale: float, window: int | None) -> torch.Tensor:
    """One query token: it sees all that is there, so there is no mask. [1, H, D] -> [1, H * D]."""
    start = 0 if window is None else max(0, sequence.context - window)
    k = _context(kv[0], sequence, start, q.dtype).transpose(0, 1)
    v = _context(kv[1], sequence, start, q.dtype).transpose(0, 1)
    out = F.scaled_dot_product_attention(q.view(1, k.shape[0], -1, q.shape[-1]), k[None], v[None], scale=scale)
    return out.reshape(1, -1)


def _chunk(q: torch.Tensor, kv: KV, sequence: _Sequence, scale: float, window: int | None, plan: _Plan) -> torch.Tensor:
    """Many query tokens, causal. [n, H, D] -> [n, H * D]."""
    n, heads, dim = q.shape
    start = 0 if window is None else max(0, sequence.context - n + 1 - window)
    k = _context(kv[0], sequence, start, q.dtype).transpose(0, 1)
    v = _context(kv[1], sequence, start, q.dtype).transpose(0, 1)
    kv_heads = k.shape[0]
    q = q.view(n, kv_heads, -1, dim).permute(1, 2, 0, 3)
    whole = sequence.context == n and (window is None or window >= n)
    mask = None if whole else _mask(sequence, start, window, plan)
    k = k[:, None].expand(-1, q.shape[1], -1, -1)
    v = v[:, None].expand(-1, q.shape[1], -1, -1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole, scale=scale)
    return out.permute(2, 0, 1, 3).reshape(n, heads * dim)


def _mask(sequence: _Sequence, start: int, window: int | None, plan: _Plan) -> torch.Tensor:
    """[n, context - start] additive, the same for all heads and for all layers with this window."""
    found = plan.masks.get((sequence.first, window))
    if found is None:
        device = sequence.pages.device
        n = sequence.last - sequence.first
        query = torch.arange(sequence.context - n, sequence.context, device=device)[:, None]
        key = torch.arange(start, sequence.context, device=device)
        hidden = key > query
        if window is not None:
            hidden |= key <= query - window
        found = plan.masks[sequence.first, window] = torch.zeros(hidden.shape, device=device).masked_fill_(
            hidden, float("-inf")
        )
    return found
