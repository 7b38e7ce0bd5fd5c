"""Triton kernels that stream rows once: norms, rotation with the page write, the gated activation, fp8 rows.

They are bound by memory and, in decode, by their launch, so each does all it can with the row it has in registers.
Strides are in elements. Sums are in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from redline.runtime.kernels.triton_overlap import wait


@triton.jit(do_not_specialize=["rows"])
def rms_norm_kernel(
    x, weight, out, rows, x_stride, columns: tl.constexpr, eps, block: tl.constexpr, per_program: tl.constexpr,
    pdl: tl.constexpr = False,
):  # fmt: skip
    """`per_program` rows of `columns` numbers each; small rows (one head) share a program."""
    if pdl:
        wait()
    row = tl.program_id(0).to(tl.int64) * per_program + tl.arange(0, per_program)
    column = tl.arange(0, block)
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    value = tl.load(x + row[:, None] * x_stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1) / columns + eps)
    gain = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    result = value * scale[:, None] * gain[None, :]
    tl.store(out + row[:, None] * columns + column[None, :], result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def add_rms_norm_kernel(
    x, residual, weight, out, columns: tl.constexpr, eps, block: tl.constexpr, pdl: tl.constexpr = False
):
    """residual += x; out = norm(residual), one row per program. The sum is rounded before it is normed, as stored."""
    if pdl:
        wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < columns
    at = row * columns + column
    total = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    total = total.to(residual.dtype.element_ty)
    tl.store(residual + at, total, mask=mask)
    value = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / columns + eps)
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + at, (value * scale * gain).to(out.dtype.element_ty), mask=mask)


@triton.jit
def silu_mul_kernel(x, out, x_stride, columns: tl.constexpr, block: tl.constexpr, pdl: tl.constexpr = False):
    """out = silu(left half) * right half; program (row, block of columns)."""
    if pdl:
        wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    mask = column < columns
    gate = tl.load(x + row * x_stride + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x + row * x_stride + columns + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * columns + column, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=mask)


@triton.jit
def rope_append_kernel(
    q, k, v, cos_sin, positions, slots, q_out, k_pages, v_pages,
    q_stride, k_stride, v_stride, kv_stride, q_heads: tl.constexpr, kv_heads: tl.constexpr,
    dim: tl.constexpr, half_block: tl.constexpr, heads_block: tl.constexpr, pdl: tl.constexpr = False,
):  # fmt: skip
    """Program (token, block of heads): q heads first, then k heads, each k head with its v head.

    The two halves of a head are loaded apart, so that the rotation needs no exchange between threads. `q_out` is
    contiguous. A slot is page * page_size + offset, so a page's size is not needed; `kv_stride` is a token's.
    """
    if pdl:
        wait()
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * heads_block + tl.arange(0, heads_block)
    half: tl.constexpr = dim // 2
    i = tl.arange(0, half_block)
    inside = i < half
    position = tl.load(positions + token)
    slot = tl.load(slots + token)
    cos = tl.load(cos_sin + position * dim + i, mask=inside, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(cos_sin + position * dim + half + i, mask=inside, other=0.0).to(tl.float32)[None, :]

    q_mask = (head < q_heads)[:, None] & inside[None, :]
    source = q + token * q_stride + head[:, None] * dim + i[None, :]
    low = tl.load(source, mask=q_mask, other=0.0).to(tl.float32)
    high = tl.load(source + half, mask=q_mask, other=0.0).to(tl.float32)
    target = q_out + token * (q_heads * dim) + head[:, None] * dim + i[None, :]
    tl.store(target, (low * cos - high * sin).to(q_out.dtype.element_ty), mask=q_mask)
    tl.store(target + half, (high * cos + low * sin).to(q_out.dtype.element_ty), mask=q_mask)

    kv = head - q_heads
    kv_mask = ((kv >= 0) & (kv < kv_heads))[:, None] & inside[None, :]
    at = kv[:, None] * dim + i[None, :]
    low = tl.load(k + token * k_stride + at, mask=kv_mask, other=0.0).to(tl.float32)
    high = tl.load(k + token * k_stride + at + half, mask=kv_mask, other=0.0).to(tl.float32)
    page = slot * kv_stride + at
    tl.store(k_pages + page, (low * cos - high * sin).to(k_pages.dtype.element_ty), mask=kv_mask)
    tl.store(k_pages + page + half, (high * cos + low * sin).to(k_pages.dtype.element_ty), mask=kv_mask)
    low = tl.load(v + token * v_stride + at, mask=kv_mask, other=0.0).to(tl.float32)
    high = tl.load(v + token * v_stride + at + half, mask=kv_mask, other=0.0).to(tl.float32)
    tl.store(v_pages + page, low.to(v_pages.dtype.element_ty), mask=kv_mask)
    tl.store(v_pages + page + half, high.to(v_pages.dtype.element_ty), mask=kv_mask)


@triton.jit
def quantized(value, out, scales, row, at, mask, largest):
    """Stores one row, by its own scale, as float8."""
    scale = tl.maximum(tl.max(tl.abs(value), axis=0) / largest, 1e-12)
    scaled = tl.minimum(tl.maximum(value / scale, -largest), largest)
    tl.store(out + at, scaled.to(out.dtype.element_ty), mask=mask)
    tl.store(scales + row, scale)


@triton.jit
def quantize_rows_kernel(
    x, out, scales, columns: tl.constexpr, largest, block: tl.constexpr, pdl: tl.constexpr = False
):
    """Each row by its own scale to fp8: out = x / scale, scale = max |x| / largest. One row per program."""
    if pdl:
        wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < columns
    value = tl.load(x + row * columns + column, mask=mask, other=0.0).to(tl.float32)
    quantized(value, out, scales, row, row * columns + column, mask, largest)


@triton.jit
def norm_quantize_kernel(
    x, residual, weight, out, scales, columns: tl.constexpr, eps, largest, added: tl.constexpr, block: tl.constexpr,
    pdl: tl.constexpr = False,
):  # fmt: skip
    """`added`: residual += x. Then the norm of the residual, a row per program, as fp8 with the row's scale."""
    if pdl:
        wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < columns
    at = row * columns + column
    total = tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
    if added:
        total += tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        tl.store(residual + at, total.to(residual.dtype.element_ty), mask=mask)
        total = total.to(residual.dtype.element_ty).to(tl.float32)
    scale = tl.rsqrt(tl.sum(total * total, axis=0) / columns + eps)
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    quantized(total * scale * gain, out, scales, row, at, mask, largest)


@triton.jit
def silu_quantize_kernel(
    x, out, scales, columns: tl.constexpr, largest, block: tl.constexpr, pdl: tl.constexpr = False
):
    """silu(left half) * right half, a row per program, as fp8 with the row's scale."""
    if pdl:
        wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < columns
    gate = tl.load(x + row * 2 * columns + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * columns + columns + column, mask=mask, other=0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    quantized(value, out, scales, row, row * columns + column, mask, largest)
