"""Matrix products of a few rows, where the weight is read once and nothing else matters. Candidates of the chooser.

What stands around a product in a decode step goes into it, since each launch costs as much as megabytes of weights:
the norm of its input (`normed`), the gated activation of its output (`gated`), the sum with the residual (`added`).
A weight may be float8 with a scale per output channel (`scaled`): it is widened as it is read, and the activation stays
as it is, which is more exact than rounding both.

With `pdl` a kernel is started while its predecessor still runs: it asks for its weights to come into the cache, and
waits for the predecessor before it reads anything that a kernel writes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from redline.runtime.kernels.tiers import asked_for, without
from redline.runtime.kernels.triton_overlap import begin
from redline.runtime.linear import Fp8, Plain


class Around(NamedTuple):
    """What is computed with a product. `gain`: the input is normed with it and `eps`. `gated`: the output is silu of
    its first half times the second. `residual` [T, out] gets the output added and is the result. `out` is where the
    result goes when it is not new. `pdl`: see above."""

    gain: torch.Tensor | None = None
    eps: float = 0.0
    gated: bool = False
    residual: torch.Tensor | None = None
    out: torch.Tensor | None = None
    pdl: bool = False


NOTHING = Around()
Product = Callable[[torch.Tensor, "Plain | Fp8", Around], torch.Tensor]
PREFETCH = not without("prefetch")
COUNTERS = 1 << 14


@triton.jit
def rows_of(n, gated: tl.constexpr, block_n: tl.constexpr):
    """The weight's rows of a program. Gated: the first half of them are gates, the others what they belong to."""
    r = tl.arange(0, block_n)
    if gated:
        half: tl.constexpr = block_n // 2
        one = tl.program_id(0) * half + r % half
        return tl.where(one < n // 2, one + (r // half) * (n // 2), n)
    return tl.program_id(0) * block_n + r


@triton.jit
def gate(both, half: tl.constexpr, width: tl.constexpr):
    """[2 half, width] -> [half, width]: silu of the first half times the second."""
    first, second = tl.split(tl.permute(tl.reshape(both, (2, half, width)), (1, 2, 0)))
    return first / (1.0 + tl.exp(-first)) * second


@triton.jit
def gemv_kernel(
    x, weight, out, bias, scale, gain, n, k, eps,
    biased: tl.constexpr, scaled: tl.constexpr, normed: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
    pdl: tl.constexpr, lines: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    """One row: out[n] = sum over k of x[k] weight[n, k]. A program streams `block_n` whole rows of the weight."""
    row = rows_of(n, gated, block_n)
    start = row.to(tl.int64)[:, None] * k
    column = tl.arange(0, block_k)
    mask = (row < n)[:, None] & (column < k)[None, :]
    # weights are constant, so the first of them are on their way while the predecessor still runs
    value = tl.load(weight + start + column[None, :], mask=mask, other=0.0, eviction_policy="evict_first")
    if pdl:
        begin(weight, row, 0, n, k, lines)
    acc = tl.zeros([block_n, block_k], tl.float32)
    squares = tl.zeros([block_k], tl.float32)
    for base in range(0, k, block_k):
        at = base + column
        after = at + block_k
        mask = (row < n)[:, None] & (after < k)[None, :]
        coming = tl.load(weight + start + after[None, :], mask=mask, other=0.0, eviction_policy="evict_first")
        part = tl.load(x + at, mask=at < k, other=0.0).to(tl.float32)
        if normed:
            squares += part * part
            part *= tl.load(gain + at, mask=at < k, other=0.0).to(tl.float32)
        acc += value.to(tl.float32) * part[None, :]
        value = coming
    result = tl.sum(acc, axis=1)
    if normed:
        result *= tl.rsqrt(tl.sum(squares, axis=0) / k + eps)
    if scaled:
        result *= tl.load(scale + row, mask=row < n, other=0.0)
    if biased:
        result += tl.load(bias + row, mask=row < n, other=0.0).to(tl.float32)
    if gated:
        half: tl.constexpr = block_n // 2
        at = tl.program_id(0) * half + tl.arange(0, half)
        gated_result = tl.reshape(gate(tl.reshape(result, (block_n, 1)), half, 1), (half,))
        tl.store(out + at, gated_result.to(out.dtype.element_ty), mask=at < n // 2)
    else:
        if added:
            result += tl.load(out + row, mask=row < n, other=0.0).to(tl.float32)
        tl.store(out + row, result.to(out.dtype.element_ty), mask=row < n)


@triton.jit
def finish(
    acc, squares, out, bias, scale, row, i, m, n, k, eps,
    biased: tl.constexpr, scaled: tl.constexpr, normed: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr,
):  # fmt: skip
    """What comes after the sums of a product of several rows. `acc` is [block_n, block_m]."""
    if normed:
        acc *= tl.rsqrt(squares / k + eps)[None, :]
    if scaled:
        acc *= tl.load(scale + row, mask=row < n, other=0.0)[:, None]
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
def multiplied(
    x, weight, gain, row, i, low, high, m, n, k, normed: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Sums over columns [low, high) of rows of the weight times rows `i` of x, [block_n, block_m]; when normed, of x
    times the gain, and the sums of the squares of x, [block_m]."""
    start = row.to(tl.int64)[:, None] * k
    column = tl.arange(0, block_k)
    acc = tl.zeros([block_n, block_m], tl.float32)
    held = tl.zeros([block_k, block_m], tl.float32)
    for base in range(low, high, block_k):
        at = base + column
        mask = (row < n)[:, None] & (at < k)[None, :]
        value = tl.load(weight + start + at[None, :], mask=mask, other=0.0, eviction_policy="evict_first")
        part = tl.load(x + i[None, :] * k + at[:, None], mask=(i < m)[None, :] & (at < k)[:, None], other=0.0)
        if normed:
            wide = part.to(tl.float32)
            held += wide * wide
            part = (wide * tl.load(gain + at, mask=at < k, other=0.0).to(tl.float32)[:, None]).to(x.dtype.element_ty)
        acc = tl.dot(value.to(x.dtype.element_ty), part, acc, input_precision=precision)
    return acc, (tl.sum(held, axis=0) if normed else tl.zeros([block_m], tl.float32))


@triton.jit(do_not_specialize=["m", "splits"])
def skinny_kernel(
    x, weight, out, bias, scale, gain, partial, sums, counters, m, n, k, splits, eps,
    biased: tl.constexpr, scaled: tl.constexpr, normed: tl.constexpr, gated: tl.constexpr, added: tl.constexpr,
    pdl: tl.constexpr, lines: tl.constexpr, split_up: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Up to `block_m` rows at once, on the tensor cores; the weight's rows stand where a product has its tall side.

    Program (block of rows, split of k). The last of a block's splits to arrive adds them up, always in the same order,
    and sets the counter back to zero, so that the next launch finds it so.
    """
    row = rows_of(n, gated, block_n)
    i = tl.arange(0, block_m)
    split = tl.program_id(1)
    each = tl.cdiv(tl.cdiv(k, block_k), splits) * block_k
    low = split * each
    if pdl:
        begin(weight, row, low, n, k, lines)
    acc, squares = multiplied(
        x, weight, gain, row, i, low, tl.minimum(k, low + each), m, n, k, normed, block_m, block_n, block_k, precision
    )
    if not split_up:
        finish(
            acc, squares, out, bias, scale, row, i, m, n, k, eps, biased, scaled, normed, gated, added, block_m, block_n
        )
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
                acc, squares, out, bias, scale, row, i, m, n, k, eps, biased, scaled, normed, gated, added, block_m,
                block_n,
            )  # fmt: skip


@cache
def _counters(device: torch.device) -> torch.Tensor:
    """Zero between launches. One for all: products of one stream follow each other."""
    return torch.zeros(COUNTERS, dtype=torch.int32, device=device)


def _lines(weight: torch.Tensor, columns: int, most: int) -> int:
    """Cache lines of a row that are asked for ahead, a power of two."""
    return 0 if not PREFETCH else min(most, 1 << max(0, -(-columns * weight.element_size() // 128) - 1).bit_length())


def _target(x: torch.Tensor, n: int, around: Around) -> torch.Tensor:
    if around.residual is not None:
        return around.residual
    if around.out is not None:
        return around.out
    return torch.empty((x.shape[0], n // 2 if around.gated else n), dtype=x.dtype, device=x.device)


def gemv(
    x: torch.Tensor, weight: Plain | Fp8, around: Around = NOTHING, *, block_n: int, block_k: int, warps: int
) -> torch.Tensor:
    """[1, in] -> [1, out], or [1, out / 2] when gated."""
    (n, k), bias = weight.weight.shape, weight.bias
    out = _target(x, n, around)
    gain = around.gain
    per = block_n // 2 if around.gated else block_n
    gemv_kernel[(triton.cdiv(n // 2 if around.gated else n, per),)](
        x, weight.weight, out, out if bias is None else bias, weight.scale if isinstance(weight, Fp8) else out,
        out if gain is None else gain, n, k, around.eps, bias is not None, isinstance(weight, Fp8), gain is not None,
        around.gated, around.residual is not None, around.pdl, _lines(weight.weight, k, 128), block_n, block_k,
        num_warps=warps, launch_pdl=around.pdl,
    )  # fmt: skip
    return out


def skinny(
    x: torch.Tensor,
    weight: Plain | Fp8,
    around: Around = NOTHING,
    *,
    block_n: int,
    block_k: int,
    stages: int,
    splits: int = 1,
) -> torch.Tensor:
    """[m, in] -> [m, out], or [m, out / 2] when gated, for m up to 64."""
    (n, k), m, bias = weight.weight.shape, x.shape[0], weight.bias
    out = _target(x, n, around)
    gain = around.gain
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
        out if gain is None else gain, partial, sums, counters, m, n, k, splits, around.eps, bias is not None,
        isinstance(weight, Fp8), gain is not None, around.gated, around.residual is not None, around.pdl,
        _lines(weight.weight, -(-k // splits), 32), splits > 1, block_m, block_n, block_k, precision,
        num_warps=4, num_stages=stages, launch_pdl=around.pdl,
    )  # fmt: skip
    return out


def candidates(tokens: int, weight: Plain | Fp8, processors: int = 132) -> dict[str, Product]:
    """The ways of this module to multiply so few tokens, by name; none where they cannot win."""
    n, k = weight.weight.shape
    if not weight.weight.is_contiguous() or k % 16 or n % 2:
        return {}
    wide = isinstance(weight, Plain)
    if tokens == 1:
        shapes = ((4, 1024, 4), (8, 1024, 8))
        return {f"gemv{n}x{k}w{w}": partial(gemv, block_n=n, block_k=k, warps=w) for n, k, w in shapes}
    # from 17 rows on the library was the fastest for bf16 wherever it was measured, and each way costs a compilation
    if tokens > (16 if wide else 64):
        return {}
    block_n, block_k, stages = 64, 128, 4 if tokens <= 16 else 3
    # at least one program for each processor
    blocks, whole = triton.cdiv(n, block_n), max(1, k // block_k)
    splits = min(1 << max(0, (processors - 1) // blocks).bit_length(), 16, whole)
    splits = splits if blocks <= COUNTERS and asked_for("splits") else 1
    name = f"skinny{block_n}x{block_k}" + (f"/{splits}" if splits > 1 else "")
    return {name: partial(skinny, block_n=block_n, block_k=block_k, stages=stages, splits=splits)}
