"""Tier T0: plain torch. It is what a CPU runs, and what the other tiers are compared with.

Attention gathers each sequence's pages. Decodes fold the query heads of one key head into the sequence axis, which is
several times quicker on a CPU than `enable_gqa`.
"""

from __future__ import annotations

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


class _Side(NamedTuple):
    """K or V of one layer, seen in three ways: as pages, as rows to write, as heads [1, K, slots, D] to read."""

    pages: torch.Tensor
    rows: torch.Tensor
    heads: torch.Tensor


class TorchKernels:
    """See `Kernels`. Reads lengths on the host (`batch.host_*`, or by copying them), so no graph can hold it.

    Decoding a small model is mostly the cost of calling torch, so views that stay the same are kept.
    """

    name = "torch"

    def __init__(self) -> None:
        self._plan: _Plan | None = None
        self._tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._sides: dict[int, _Side] = {}

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        if x.shape[0] == 1 and x.dim() == 2 and x.dtype == torch.float32 and x.device.type == "cpu":
            # one row: a scalar on the host is cheaper than the same arithmetic on tensors of one number
            row = x.view(-1)
            return torch.mul(x, weight).mul_((float(row.dot(row)) / row.shape[0] + eps) ** -0.5)
        return F.rms_norm(x, (x.shape[-1],), weight, eps)

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        residual = residual.add_(x)
        return self.rms_norm(residual, weight, eps), residual

    def rope_append(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos_sin: torch.Tensor, batch: Batch, kv: KV
    ) -> torch.Tensor:
        plan = self._planned(batch, cos_sin, kv[0].shape[1])
        (tokens, heads, dim), kv_heads = q.shape, k.shape[1]
        stride, after = q.stride(), q.storage_offset() + heads * dim
        if stride == k.stride() and stride[1] == dim and k.storage_offset() == after and _same_storage(q, k):
            # parts of one projection: rotate both at once
            both = _rotate(q.as_strided((tokens, heads + kv_heads, dim), stride), plan.cos, plan.sin)
            q, k = both.split_with_sizes((heads, kv_heads), 1)
        else:
            q, k = _rotate(q, plan.cos, plan.sin), _rotate(k, plan.cos, plan.sin)
        keys, values = self._side(kv[0]).rows, self._side(kv[1]).rows
        keys.index_copy_(0, batch.slots, k if k.dtype == keys.dtype else k.to(keys.dtype))
        values.index_copy_(0, batch.slots, v if v.dtype == values.dtype else v.to(values.dtype))
        return q

    def attention(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        plan = self._planned(batch, None, kv[0].shape[1])
        (tokens, heads, dim), kv_heads = q.shape, kv[0].shape[2]
        grouped = q.view(tokens, kv_heads, heads // kv_heads, dim)
        sides = self._side(kv[0]), self._side(kv[1])
        parts = [
            _one(grouped[s.first : s.last], sides, s, scale, window)
            if s.last - s.first == 1
            else _chunk(grouped[s.first : s.last], sides, s, scale, window, plan)
            for s in plan.sequences
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(tokens, heads * dim)

    def silu_mul(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        gate, up = x.split_with_sizes((half, half), -1)
        return F.silu(gate).mul_(up)

    def linear(self, x: torch.Tensor, weight: Weight) -> torch.Tensor:
        return weight.apply(x)

    def _planned(self, batch: Batch, cos_sin: torch.Tensor | None, page_size: int) -> _Plan:
        """`cos_sin` None: only attention follows, as in a test of it alone."""
        if self._plan is not None and self._plan.batch is batch:
            return self._plan
        if cos_sin is None:
            cos = sin = torch.empty(0)
        else:
            if self._tables is None or self._tables[0] is not cos_sin:
                self._tables = (cos_sin, *_tables(cos_sin))
            cos = self._tables[1].index_select(0, batch.positions)
            sin = self._tables[2].index_select(0, batch.positions)
        self._plan = _Plan(batch, cos, sin, _sequences(batch, page_size), {})
        return self._plan

    def _side(self, pages: torch.Tensor) -> _Side:
        found = self._sides.get(id(pages))
        if found is None or found.pages is not pages:
            rows = pages.view(-1, *pages.shape[2:])
            found = self._sides[id(pages)] = _Side(pages, rows, rows.transpose(0, 1)[None])
        return found


def _same_storage(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.data_ptr() - a.storage_offset() * a.itemsize == b.data_ptr() - b.storage_offset() * b.itemsize


def _sequences(batch: Batch, page_size: int) -> list[_Sequence]:
    starts = batch.host_starts if batch.host_starts is not None else batch.starts.tolist()
    lengths = batch.host_seq_lens if batch.host_seq_lens is not None else batch.seq_lens.tolist()
    sequences = []
    for row, (ids, length) in enumerate(zip(batch.page_tables.tolist(), lengths, strict=True)):
        count = -(-length // page_size)
        adjacent = ids[:count] == list(range(ids[0], ids[0] + count))
        pages = batch.page_tables[row, :count]
        sequences.append(_Sequence(starts[row], starts[row + 1], length, pages, ids[0] if adjacent else None))
    return sequences


def _tables(cos_sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[positions, 1, D] each, for `_rotate`."""
    cos, sin = cos_sin[:, None].chunk(2, -1)
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x · (cos, cos) + (second half, first half) · (-sin, sin)."""
    tokens, heads, dim = x.shape
    swapped = x.reshape(tokens, heads, 2, dim // 2).flip(2).view(tokens, heads, dim)
    out = torch.addcmul(x * cos, swapped, sin)
    return out if out.dtype == x.dtype else out.to(x.dtype)


def _context(side: _Side, sequence: _Sequence, start: int, dtype: torch.dtype) -> torch.Tensor:
    """K or V of the sequence from position `start` on, [1, K, context - start, D]."""
    page_size = side.pages.shape[1]
    if sequence.page is not None:
        found = side.heads.narrow(2, sequence.page * page_size + start, sequence.context - start)
    else:
        skipped = start // page_size
        gathered = side.pages.index_select(0, sequence.pages[skipped:]).view(-1, *side.pages.shape[2:])
        found = gathered.narrow(0, start - skipped * page_size, sequence.context - start).transpose(0, 1)[None]
    return found if found.dtype == dtype else found.to(dtype)


def _one(
    q: torch.Tensor, kv: tuple[_Side, _Side], sequence: _Sequence, scale: float, window: int | None
) -> torch.Tensor:
    """One query token: it sees all that is there, so there is no mask. [1, K, G, D] -> [1, K, G, D]."""
    start = 0 if window is None else max(0, sequence.context - window)
    k, v = _context(kv[0], sequence, start, q.dtype), _context(kv[1], sequence, start, q.dtype)
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def _chunk(
    q: torch.Tensor, kv: tuple[_Side, _Side], sequence: _Sequence, scale: float, window: int | None, plan: _Plan
) -> torch.Tensor:
    """Many query tokens, causal. [n, K, G, D] -> [n, K, G, D]."""
    n, group = q.shape[0], q.shape[2]
    start = 0 if window is None else max(0, sequence.context - n + 1 - window)
    whole = sequence.context == n and (window is None or window >= n)
    mask = None if whole else _mask(sequence, start, window, plan)
    # each key head becomes a row of a batch, so that its query heads can share it without copies
    k, v = (_context(side, sequence, start, q.dtype).transpose(0, 1).expand(-1, group, -1, -1) for side in kv)
    out = F.scaled_dot_product_attention(q.permute(1, 2, 0, 3), k, v, attn_mask=mask, is_causal=whole, scale=scale)
    return out.permute(2, 0, 1, 3)


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
