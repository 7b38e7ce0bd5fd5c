"""Matrix products of a few rows, where the weight is read once and nothing else matters. Candidates of the chooser."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import triton
import triton.language as tl

from redline.runtime.linear import Fp8, Plain

Product = Callable[[torch.Tensor, "Plain | Fp8"], torch.Tensor]


@triton.jit
def gemv_kernel(
    x, weight, out, bias, scale, n, k, biased: tl.constexpr, scaled: tl.constexpr,
    block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    """One row: out[n] = sum over k of x[k] weight[n, k]. A program streams `block_n` whole rows of the weight.

    `scaled`: the weight is float8 with a scale per row; the activation stays as it is.
    """
    row = tl.program_id(0) * block_n + tl.arange(0, block_n)
    start = row.to(tl.int64)[:, None] * k
    column = tl.arange(0, block_k)
    acc = tl.zeros([block_n, block_k], tl.float32)
    for base in range(0, k, block_k):
        at = base + column
        part = tl.load(x + at, mask=at < k, other=0.0).to(tl.float32)
        mask = (row < n)[:, None] & (at < k)[None, :]
        value = tl.load(weight + start + at[None, :], mask=mask, other=0.0, eviction_policy="evict_first")
        acc += value.to(tl.float32) * part[None, :]
    result = tl.sum(acc, axis=1)
    if scaled:
        result *= tl.load(scale + row, mask=row < n, other=0.0)
    if biased:
        result += tl.load(bias + row, mask=row < n, other=0.0).to(tl.float32)
    tl.store(out + row, result.to(out.dtype.element_ty), mask=row < n)


@triton.jit(do_not_specialize=["m"])
def skinny_kernel(
    x, weight, out, bias, m, n, k, biased: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Up to `block_m` rows at once, on the tensor cores; the weight's rows stand where a product has its tall side."""
    row = tl.program_id(0) * block_n + tl.arange(0, block_n)
    start = row.to(tl.int64)[:, None] * k
    i = tl.arange(0, block_m)
    column = tl.arange(0, block_k)
    acc = tl.zeros([block_n, block_m], tl.float32)
    for base in range(0, k, block_k):
        at = base + column
        mask = (row < n)[:, None] & (at < k)[None, :]
        value = tl.load(weight + start + at[None, :], mask=mask, other=0.0, eviction_policy="evict_first")
        part = tl.load(x + i[None, :] * k + at[:, None], mask=(i < m)[None, :] & (at < k)[:, None], other=0.0)
        acc = tl.dot(value, part, acc, input_precision=precision)
    if biased:
        acc += tl.load(bias + row, mask=row < n, other=0.0).to(tl.float32)[:, None]
    target = out + i[None, :] * n + row[:, None]
    tl.store(target, acc.to(out.dtype.element_ty), mask=(row < n)[:, None] & (i < m)[None, :])


def gemv(x: torch.Tensor, weight: Plain | Fp8, *, block_n: int, block_k: int, warps: int) -> torch.Tensor:
    """[1, in] -> [1, out]."""
    (n, k), bias = weight.weight.shape, weight.bias
    out = torch.empty((1, n), dtype=x.dtype, device=x.device)
    scaled = isinstance(weight, Fp8)
    gemv_kernel[(triton.cdiv(n, block_n),)](
        x, weight.weight, out, out if bias is None else bias, weight.scale if isinstance(weight, Fp8) else out, n, k,
        bias is not None, scaled, block_n, block_k, num_warps=warps,
    )  # fmt: skip
    return out


def skinny(x: torch.Tensor, weight: Plain | Fp8, *, block_n: int, block_k: int, stages: int) -> torch.Tensor:
    """[m, in] -> [m, out] for m up to 16; dense weights in the activation's dtype."""
    (n, k), m, bias = weight.weight.shape, x.shape[0], weight.bias
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    skinny_kernel[(triton.cdiv(n, block_n),)](
        x, weight.weight, out, out if bias is None else bias, m, n, k, bias is not None, 16, block_n, block_k,
        precision, num_warps=4, num_stages=stages,
    )  # fmt: skip
    return out


def candidates(tokens: int, weight: Plain | Fp8) -> dict[str, Product]:
    """The ways of this module to multiply so few tokens, by name; none where they cannot win."""
    if not weight.weight.is_contiguous() or weight.weight.shape[1] % 16:
        return {}
    if tokens == 1:
        shapes = ((4, 1024, 4), (8, 1024, 8), (16, 512, 8))
        return {f"gemv{n}x{k}": partial(gemv, block_n=n, block_k=k, warps=w) for n, k, w in shapes}
    if tokens <= 16 and isinstance(weight, Plain):
        tiles = ((32, 256, 3), (64, 128, 4))
        return {f"skinny{n}x{k}": partial(skinny, block_n=n, block_k=k, stages=s) for n, k, s in tiles}
    return {}
