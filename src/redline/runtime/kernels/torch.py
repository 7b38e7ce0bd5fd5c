"""Tier T0: plain torch. It is what a CPU runs, and what the other tiers are compared with.

Attention gathers each sequence's pages. Decodes fold the query heads of one key head into the sequence axis, which is
several times quicker on a CPU than `enable_gqa`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812

from redline.runtime.batch import Batch, host
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
    """What all layers need of one batch, made once. `cos` and `sin` are laid out for `_rotate`: [T, 1, D], and for
    `whole` projections [T, H + 2 K, D] with ones and zeros for the values, which are not rotated."""

    batch: Batch
    cos: torch.Tensor
    sin: torch.Tensor
    whole: dict[int, tuple[torch.Tensor, torch.Tensor]]
    sequences: list[_Sequence]
    masks: dict[tuple[int, int | None], torch.Tensor]


class _Layer(NamedTuple):
    """K and V of one layer as the kernels see them: rows to write, heads [1, K, slots, D] to read.

    `both` [slots, 2 K, D] where a token's values follow its keys in memory, so that one call writes them.
    """

    pages: KV
    rows: KV
    heads: KV
    both: torch.Tensor | None


class TorchKernels:
    """See `Kernels`. Reads lengths on the host (`batch.host_*`, or by copying them), so no graph can hold it.

    `products` is a dtype that linear layers compute and answer in, if not that of the activations; norms, rotation,
    attention and sums stay in theirs. Decoding a small model is mostly the cost of calling torch, so there are as few
    calls as can be, and views that stay the same are kept.
    """

    name = "torch"

    def __init__(self, products: torch.dtype | None = None) -> None:
        self.products = products
        self._plan: _Plan | None = None
        self._tables: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._layers: dict[int, _Layer] = {}

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        if x.shape[0] == 1 and x.dim() == 2 and x.dtype == torch.float32 and x.device.type == "cpu":
            # one row: a scalar on the host is cheaper than the same arithmetic on tensors of one number
            row = x.view(-1)
            return torch.mul(x, weight).mul_((float(row.dot(row)) / row.shape[0] + eps) ** -0.5)
        return F.rms_norm(x if x.dtype == weight.dtype else x.to(weight.dtype), (x.shape[-1],), weight, eps)

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        residual = residual.add_(x)
        return self.rms_norm(residual, weight, eps), residual

    def rope_append(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos_sin: torch.Tensor, batch: Batch, kv: KV
    ) -> torch.Tensor:
        plan, layer = self._planned(batch, cos_sin, kv[0].shape[1]), self._layer(kv)
        if layer.both is not None and (rows := _projection(q, k, v)) is not None:
            heads = q.shape[1]
            turned = _rotate(rows, *_whole(plan, heads + k.shape[1], k.shape[1]))
            layer.both.index_copy_(0, batch.slots, turned[:, heads:])
            return turned[:, :heads]
        for side, new in zip(layer.rows, (_rotate(k, plan.cos, plan.sin), v), strict=True):
            side.index_copy_(0, batch.slots, new.to(side.dtype))
        return _rotate(q, plan.cos, plan.sin)

    def attention(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        plan = self._planned(batch, None, kv[0].shape[1])
        (tokens, heads, dim), kv_heads = q.shape, kv[0].shape[2]
        grouped = q.view(tokens, kv_heads, heads // kv_heads, dim)
        layer = self._layer(kv)
        if tokens == 1:
            out = _one(grouped, layer, plan.sequences[0], scale, window)
            return out.reshape(1, heads * dim)
        parts = [
            _one(grouped[s.first : s.last], layer, s, scale, window)
            if s.last - s.first == 1
            else _chunk(grouped[s.first : s.last], layer, s, scale, window, plan)
            for s in plan.sequences
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(tokens, heads * dim)

    def silu_mul(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        gate, up = x.split_with_sizes((half, half), -1)
        return F.silu(gate).mul_(up)

    def linear(self, x: torch.Tensor, weight: Weight) -> torch.Tensor:
        return weight.apply(x if self.products is None or x.dtype == self.products else x.to(self.products))

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
        self._plan = _Plan(batch, cos, sin, {}, _sequences(batch, page_size), {})
        return self._plan

    def _layer(self, kv: KV) -> _Layer:
        found = self._layers.get(id(kv[0]))
        if found is None or found.pages[0] is not kv[0]:
            found = self._layers[id(kv[0])] = _views(kv)
        return found


def _views(kv: KV) -> _Layer:
    (pages, page_size, heads, dim) = kv[0].shape
    slots = pages * page_size
    keys, values = kv[0].view(slots, heads, dim), kv[1].view(slots, heads, dim)
    together = (2 * heads * dim, dim, 1)
    adjacent = values.data_ptr() - keys.data_ptr() == heads * dim * keys.itemsize
    both = None
    if keys.stride() == values.stride() == together and adjacent:
        both = keys.as_strided((slots, 2 * heads, dim), together)
    return _Layer(kv, (keys, values), (keys.transpose(0, 1)[None], values.transpose(0, 1)[None]), both)


def _projection(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor | None:
    """[T, H + 2 K, D] that the three are slices of; None when they are not."""
    (tokens, heads, dim), kv_heads, stride = q.shape, k.shape[1], q.stride()
    size = dim * q.itemsize
    at = q.data_ptr(), k.data_ptr() - heads * size, v.data_ptr() - (heads + kv_heads) * size
    if at[0] == at[1] == at[2] and stride == k.stride() == v.stride() and stride[0] == (heads + 2 * kv_heads) * dim:
        return q.as_strided((tokens, heads + 2 * kv_heads, dim), stride)
    return None


def _whole(plan: _Plan, rotated: int, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = plan.whole.get(rotated)
    if found is None:
        shape, still = (-1, rotated, -1), (plan.cos.shape[0], kept, plan.cos.shape[2])
        cos = torch.cat((plan.cos.expand(shape), plan.cos.new_ones(still)), 1)
        found = plan.whole[rotated] = cos, torch.cat((plan.sin.expand(shape), plan.sin.new_zeros(still)), 1)
    return found


def _sequences(batch: Batch, page_size: int) -> list[_Sequence]:
    starts, lengths = host(batch)
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
    """x · (cos, cos) + (second half, first half) · (-sin, sin), in the tables' dtype."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _context(layer: _Layer, side: int, sequence: _Sequence, start: int, dtype: torch.dtype) -> torch.Tensor:
    """K (side 0) or V (1) of the sequence from position `start` on, [1, K, context - start, D]."""
    page_size = layer.pages[side].shape[1]
    if sequence.page is not None:
        found = layer.heads[side].narrow(2, sequence.page * page_size + start, sequence.context - start)
    else:
        skipped = start // page_size
        gathered = layer.pages[side].index_select(0, sequence.pages[skipped:]).flatten(0, 1)
        found = gathered.narrow(0, start - skipped * page_size, sequence.context - start).transpose(0, 1)[None]
    return found if found.dtype == dtype else found.to(dtype)


def _one(q: torch.Tensor, layer: _Layer, sequence: _Sequence, scale: float, window: int | None) -> torch.Tensor:
    """One query token: it sees all that is there, so there is no mask. [1, K, G, D] -> [1, K, G, D]."""
    start = 0 if window is None else max(0, sequence.context - window)
    k, v = (_context(layer, side, sequence, start, q.dtype) for side in (0, 1))
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


def _chunk(
    q: torch.Tensor, layer: _Layer, sequence: _Sequence, scale: float, window: int | None, plan: _Plan
) -> torch.Tensor:
    """Many query tokens, causal. [n, K, G, D] -> [n, K, G, D]."""
    n, group = q.shape[0], q.shape[2]
    start = 0 if window is None else max(0, sequence.context - n + 1 - window)
    whole = sequence.context == n and (window is None or window >= n)
    mask = None if whole else _mask(sequence, start, window, plan)
    # each key head becomes a row of a batch, so that its query heads can share it without copies
    k, v = (
        _context(layer, side, sequence, start, q.dtype).transpose(0, 1).expand(-1, group, -1, -1) for side in (0, 1)
    )
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
