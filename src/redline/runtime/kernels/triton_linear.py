"""Matrix products of a few rows, where the weight is read once and nothing else matters. Candidates of the chooser.

What stands around a product in a decode step goes into it, since each launch costs as much as megabytes of weights:
the norm of its input (`normed`), the gated activation of its output (`gated`), the sum with the residual (`added`).
A weight may be float8 with a scale per output channel (`scaled`). One row is multiplied as it is, the weight widened as
it is read; several rows are float8 too, with a scale each (`rounded`), so that the tensor cores take both as they are.

With `pdl` a kernel is started while its predecessor still runs: it reads the first of its weights, which are constant,
and waits for the predecessor before it reads anything that a kernel writes. That keeps the memory busy where one kernel
ends and the next begins. (Asking for all of them to come into the cache instead made it slower.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from redline.runtime.kernels.triton_overlap import wait
from redline.runtime.linear import Fp8, Plain


class Around(NamedTuple):
    """What is computed with a product. `gain`: the input is normed with it and `eps`. `gated`: the output is silu of
    its first half times the second. `residual` [T, out] gets the output added and is the result. `out` is where the
    result goes when it is not new. `scales` [T, 1]: the input is float8 rows and these; the result has `dtype`. `pdl`:
    see above."""

    gain: torch.Tensor | None = None
    eps: float = 0.0
    gated: bool = False
    residual: torch.Tensor | None = None
    out: torch.Tensor | None = None
    scales: torch.Tensor | None = None
    dtype: torch.dtype | None = None
    pdl: bool = False


NOTHING = Around()
Product = Callable[[torch.Tensor, "Plain | Fp8", Around], torch.Tensor]


class Way(NamedTuple):
    """An own product. `norms`: it norms its input itself. `rounds`: its input is float8 rows with their scales."""

    product: Product
    norms: bool = False
    rounds: bool = False


COUNTERS = 1 << 14
LONGEST_ROW = 1 << 14
"""A single row is held in registers."""


@triton.jit
def rows_of(block, n, gated: tl.constexpr, block_n: tl.constexpr):
    """The weight's rows of a block. Gated: the first half of them are gates, the others what they belong to."""
    r = tl.arange(0, block_n)
    if gated:
        half: tl.constexpr = block_n // 2
        one = block * half + r % half
        return tl.where(one < n // 2, one + (r // half) * (n // 2), n)
    return block * block_n + r


@triton.jit
def gate(both, half: tl.constexpr, width: tl.constexpr):
    """[2 half, width] -> [half, width]: silu of the first half times the second."""
    first, second = tl.split(tl.permute(tl.reshape(both, (2, half, width)), (1, 2, 0)))
    return first / (1.0 + tl.exp(-first)) * second


@triton.jit
def weights(weight, row, at, high, n, k):
    """Columns `at` below `high` of rows of the weight."""
    mask = (row < n)[:, None] & (at < high)[None, :]
    where = weight + row.to(tl.int64)[:, None] * k + at[None, :]
    return tl.load(where, mask=mask, other=0.0, eviction_policy="evict_first")


@triton.jit
def gemv_kernel(
    x, weight, out, bias, scale, gain, n, k, eps,
    biased: tl.constexpr, scaled: tl.constexpr, normed: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
    pdl: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    """One row: out[n] = sum over k of x[k] weight[n, k]. A program holds x, takes every so-many-th block of `block_n`
    whole rows of the weight, and reads the next while it adds up one."""
    half: tl.constexpr = block_n // 2
    per: tl.constexpr = half if gated else block_n
    column = tl.arange(0, block_k)
    first = tl.program_id(0)
    value = weights(weight, rows_of(first, n, gated, block_n), column, k, n, k)
    if pdl:
        wait()
    part = tl.load(x + column, mask=column < k, other=0.0).to(tl.float32)
    if normed:
        root = tl.rsqrt(tl.sum(part * part, axis=0) / k + eps)
        part *= tl.load(gain + column, mask=column < k, other=0.0).to(tl.float32) * root
    wide = n // 2 if gated else n
    for block in range(first, tl.cdiv(wide, per), tl.num_programs(0)):
        row = rows_of(block, n, gated, block_n)
        coming = weights(weight, rows_of(block + tl.num_programs(0), n, gated, block_n), column, k, n, k)
        if added:
            before = tl.load(out + row, mask=row < n, other=0.0).to(tl.float32)
        result = tl.sum(value.to(tl.float32) * part[None, :], axis=1)
        if scaled:
            result *= tl.load(scale + row, mask=row < n, other=0.0)
        if biased:
            result += tl.load(bias + row, mask=row < n, other=0.0).to(tl.float32)
        if gated:
            at = block * half + tl.arange(0, half)
            both = tl.reshape(gate(tl.reshape(result, (block_n, 1)), half, 1), (half,))
            tl.store(out + at, both.to(out.dtype.element_ty), mask=at < wide)
        else:
            if added:
                result += before
            tl.store(out + row, result.to(out.dtype.element_ty), mask=row < n)
        value = coming


@triton.jit
def finish(
    acc, squares, out, bias, scale, scales, row, i, m, n, k, eps,
    biased: tl.constexpr, scaled: tl.constexpr, rounded: tl.constexpr, normed: tl.constexpr, gated: tl.constexpr,
    added: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr,
):  # fmt: skip
    """What comes after the sums of a product of several rows. `acc` is [block_n, block_m]."""
    if normed:
        acc *= tl.rsqrt(squares / k + eps)[None, :]
    if scaled:
        acc *= tl.load(scale + row, mask=row < n, other=0.0)[:, None]
    if rounded:
        acc *= tl.load(scales + i, mask=i < m, other=0.0)[None, :]
    if biased:
        acc += tl.load(bias + row, mask=row < n, other=0.0).to(tl.float32)[:, None]
    if gated:
        half: tl.constexpr = block_n // 2
        at = tl.program_id(0) * half + tl.arange(0, half)
        target = out + i[None, :] * (n // 2) + at[:, None]
        mask = (at < n // 2)[:, None] & (i < m)[None, :]
        tl.store(target, gate(acc, half, block_m).to(out.dtype.element_ty), mask=mask)
    else:
        target = out + i[None, :].to(tl.int64) * n + row[:, None]
        mask = (row < n)[:, None] & (i < m)[None, :]
        if added:
            acc += tl.load(target, mask=mask, other=0.0).to(tl.float32)
        tl.store(target, acc.to(out.dtype.element_ty), mask=mask)


@triton.jit
def added_up(
    acc, held, value, x, gain, i, at, high, m, k, normed: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Adds `value` [block_n, block_k] times columns `at` of rows `i` of x; `held` gets the squares of those."""
    part = tl.load(x + i[None, :] * k + at[:, None], mask=(i < m)[None, :] & (at < high)[:, None], other=0.0)
    if normed:
        wide = part.to(tl.float32)
        held += wide * wide
        part = (wide * tl.load(gain + at, mask=at < k, other=0.0).to(tl.float32)[:, None]).to(x.dtype.element_ty)
    return tl.dot(value.to(x.dtype.element_ty), part, acc, input_precision=precision), held


@triton.jit
def multiplied(
    x, weight, gain, row, i, low, high, m, n, k, normed: tl.constexpr, pdl: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Sums over columns [low, high) of rows of the weight times rows `i` of x, [block_n, block_m]; when normed, of x
    times the gain, and the sums of the squares of x, [block_m]."""
    at = low + tl.arange(0, block_k)
    value = weights(weight, row, at, high, n, k)
    if pdl:
        wait()
    acc = tl.zeros([block_n, block_m], tl.float32)
    held = tl.zeros([block_k if normed else 1, block_m], tl.float32)
    acc, held = added_up(acc, held, value, x, gain, i, at, high, m, k, normed, precision)
    for base in range(low + block_k, high, block_k):
        at = base + tl.arange(0, block_k)
        value = weights(weight, row, at, high, n, k)
        acc, held = added_up(acc, held, value, x, gain, i, at, high, m, k, normed, precision)
    return acc, tl.sum(held, axis=0)


@triton.jit(do_not_specialize=["m", "splits"])
def skinny_kernel(
    x, weight, out, bias, scale, scales, gain, partial, sums, counters, m, n, k, splits, eps,
    biased: tl.constexpr, scaled: tl.constexpr, rounded: tl.constexpr, normed: tl.constexpr, gated: tl.constexpr,
    added: tl.constexpr, pdl: tl.constexpr, split_up: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Up to `block_m` rows at once, on the tensor cores; the weight's rows stand where a product has its tall side.

    Program (block of rows, split of k). The last of a block's splits to arrive adds them up, always in the same order,
    and sets the counter back to zero, so that the next launch finds it so.
    """
    row = rows_of(tl.program_id(0), n, gated, block_n)
    i = tl.arange(0, block_m)
    split = tl.program_id(1)
    each = tl.cdiv(tl.cdiv(k, block_k), splits) * block_k
    low = split * each
    acc, squares = multiplied(
        x, weight, gain, row, i, low, tl.minimum(k, low + each), m, n, k, normed, pdl, block_m, block_n, block_k,
        precision,
    )  # fmt: skip
    if not split_up:
        finish(
            acc, squares, out, bias, scale, scales, row, i, m, n, k, eps, biased, scaled, rounded, normed, gated, added,
            block_m, block_n,
        )  # fmt: skip
    else:
        inside = tl.arange(0, block_n)[:, None] * block_m + i[None, :]
        first = tl.program_id(0).to(tl.int64) * splits
        tl.store(partial + (first + split) * (block_n * block_m) + inside, acc)
        if normed:
            tl.store(sums + (first + split) * block_m + i, squares)
        tl.debug_barrier()  # the counter speaks for all threads of this program
        if tl.atomic_add(counters + tl.program_id(0), 1, sem="acq_rel", scope="gpu") == splits - 1:
            acc = tl.zeros([block_n, block_m], tl.float32)
            squares = tl.zeros([block_m], tl.float32)
            for s in range(splits):
                acc += tl.load(partial + (first + s) * (block_n * block_m) + inside, cache_modifier=".cg")
                if normed:
                    squares += tl.load(sums + (first + s) * block_m + i, cache_modifier=".cg")
            tl.store(counters + tl.program_id(0), 0)
            finish(
                acc, squares, out, bias, scale, scales, row, i, m, n, k, eps, biased, scaled, rounded, normed, gated,
                added, block_m, block_n,
            )  # fmt: skip


@cache
def _counters(device: torch.device) -> torch.Tensor:
    """Zero between launches. One for all: products of one stream follow each other."""
    return torch.zeros(COUNTERS, dtype=torch.int32, device=device)


def _target(x: torch.Tensor, n: int, around: Around) -> torch.Tensor:
    if around.residual is not None:
        return around.residual
    if around.out is not None:
        return around.out
    shape = (x.shape[0], n // 2 if around.gated else n)
    return torch.empty(shape, dtype=around.dtype or x.dtype, device=x.device)


def gemv(
    x: torch.Tensor, weight: Plain | Fp8, around: Around = NOTHING, *, block_n: int, warps: int, programs: int
) -> torch.Tensor:
    """[1, in] -> [1, out], or [1, out / 2] when gated."""
    (n, k), bias = weight.weight.shape, weight.bias
    out = _target(x, n, around)
    gain = around.gain
    blocks = triton.cdiv(n // 2, block_n // 2) if around.gated else triton.cdiv(n, block_n)
    gemv_kernel[(min(blocks, programs),)](
        x, weight.weight, out, out if bias is None else bias, weight.scale if isinstance(weight, Fp8) else out,
        out if gain is None else gain, n, k, around.eps, bias is not None, isinstance(weight, Fp8), gain is not None,
        around.gated, around.residual is not None, around.pdl, block_n, triton.next_power_of_2(k),
        num_warps=warps, launch_pdl=around.pdl,
    )  # fmt: skip
    return out


class Tile(NamedTuple):
    """How `skinny` is cut: rows and columns of the weight at a time, buffers, programs that share a row."""

    block_n: int = 64
    block_k: int = 128
    stages: int = 4
    splits: int = 1
    warps: int = 4


def skinny(x: torch.Tensor, weight: Plain | Fp8, around: Around = NOTHING, *, tile: Tile) -> torch.Tensor:
    """[m, in] -> [m, out], or [m, out / 2] when gated, for m up to 64."""
    (n, k), m, bias = weight.weight.shape, x.shape[0], weight.bias
    out = _target(x, n, around)
    gain, block_n, splits = around.gain, tile.block_n, tile.splits
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    per = block_n // 2 if around.gated else block_n
    blocks = triton.cdiv(n // 2 if around.gated else n, per)
    block_m = 16 if m <= 16 else 32 if m <= 32 else 64
    partial, sums, counters = out, out, out
    if splits > 1:
        partial = torch.empty(blocks * splits * block_n * block_m, dtype=torch.float32, device=x.device)
        sums = torch.empty(blocks * splits * block_m, dtype=torch.float32, device=x.device)
        counters = _counters(x.device)
    skinny_kernel[(blocks, splits)](
        x, weight.weight, out, out if bias is None else bias, weight.scale if isinstance(weight, Fp8) else out,
        out if around.scales is None else around.scales, out if gain is None else gain, partial, sums, counters,
        m, n, k, splits, around.eps, bias is not None, isinstance(weight, Fp8), around.scales is not None,
        gain is not None, around.gated, around.residual is not None, around.pdl, splits > 1,
        block_m, block_n, tile.block_k, precision,
        num_warps=tile.warps, num_stages=tile.stages, launch_pdl=around.pdl,
    )  # fmt: skip
    return out


def candidates(tokens: int, weight: Plain | Fp8, processors: int = 132) -> dict[str, Way]:
    """The ways of this module to multiply so few tokens, by name; none where they cannot win. Of the cuts that
    `bench/engine_products.py` tries, those that were the fastest for some shape on an H100."""
    n, k = weight.weight.shape
    if not weight.weight.is_contiguous() or k % 16 or n % 2:
        return {}
    found: dict[str, Way] = {}
    if tokens == 1 and k <= LONGEST_ROW:
        warps = 4 if k <= 4096 else 8 if k <= 8192 else 16
        rows = max(2, 64 * 32 * warps // triton.next_power_of_2(k))  # 64 elements for each thread
        way = partial(gemv, block_n=rows, warps=warps, programs=processors * 16 // warps)
        found[f"gemv{rows}w{warps}"] = Way(way)
    for tile, each in _tiles(tokens, isinstance(weight, Fp8)):
        blocks, whole = triton.cdiv(n, tile.block_n), max(1, k // tile.block_k)
        splits = min(1 << max(0, (each * processors - 1) // blocks).bit_length(), 16, whole)
        splits = splits if blocks <= COUNTERS else 1
        name = f"skinny{tile.block_n}x{tile.block_k}s{tile.stages}" + (f"/{splits}" if splits > 1 else "")
        found[name] = Way(partial(skinny, tile=tile._replace(splits=splits)), rounds=isinstance(weight, Fp8))
    return found


def _tiles(tokens: int, fp8: bool) -> list[tuple[Tile, int]]:
    """(tile, programs for each processor at least). A bf16 weight and 17 rows or more: the library was always faster;
    and one row is `gemv`'s. Each tile is compiled at start, so there are few."""
    if fp8 and 16 < tokens <= 64:
        return [(Tile(64, 256, 2), 1), (Tile(128, 128, 3, warps=8), 1)]
    if tokens > 16 or (tokens == 1 and not fp8):
        return []
    return [(Tile(64, 256 if fp8 else 128, 3), 1)]
