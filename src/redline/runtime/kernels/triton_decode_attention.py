"""Attention of decode steps from the fused projection: norms of q and k, rotation, the page write, and the attention
itself in one launch. For one query token per sequence; `triton_attention.py` has the general case and joins splits.

Splits are joined by a launch of their own: done by the last of them to arrive, it took 3 µs longer on an H100.

Every program rotates the query heads of its group. The first split of a sequence also rotates the new key, writes key
and value to their page, and takes them into account from its registers: nothing is read that this launch writes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from redline.runtime.kernels.triton_attention import attend_blocks, store_rows
from redline.runtime.kernels.triton_overlap import wait


@triton.jit
def rotated(
    source, gain, cos_sin, there, d, eps, dim: tl.constexpr, normed: tl.constexpr, block_m: tl.constexpr
):  # fmt: skip
    """[block_m, block_d] float32: heads at `source` [block_m, 1], normed by `gain` when `normed`, then rotated by
    `cos_sin` [dim] ("neox" halves). The other half of a head is loaded instead of exchanged between threads."""
    half: tl.constexpr = dim // 2
    inside = d < dim
    other = tl.where(d < half, d + half, d - half)
    mask = there[:, None] & inside[None, :]
    value = tl.load(source + d[None, :], mask=mask, other=0.0).to(tl.float32)
    partner = tl.load(source + other[None, :], mask=mask, other=0.0).to(tl.float32)
    if normed:
        scale = tl.rsqrt(tl.sum(value * value, axis=1) / dim + eps)[:, None]
        value *= scale * tl.load(gain + d, mask=inside, other=0.0).to(tl.float32)[None, :]
        partner *= scale * tl.load(gain + other, mask=inside, other=0.0).to(tl.float32)[None, :]
    angle = tl.where(d < half, d, d - half)
    cos = tl.load(cos_sin + angle, mask=inside, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(cos_sin + half + angle, mask=inside, other=0.0).to(tl.float32)[None, :]
    return value * cos + tl.where(d < half, -1.0, 1.0)[None, :] * partner * sin


@triton.jit
def own_token(
    qkv, k_gain, angles, query, k_pages, v_pages, table, position, kv_head, scale, eps, kv_stride,
    group: tl.constexpr, kv_heads: tl.constexpr, dim: tl.constexpr, page_size: tl.constexpr, normed: tl.constexpr,
    block_d: tl.constexpr,
):  # fmt: skip
    """Writes the new token's key and value to their page. (every row's score of it, its value)"""
    d = tl.arange(0, block_d)
    key_at = qkv + (kv_heads * group + kv_head) * dim + tl.zeros([1], tl.int32)[:, None]
    there = tl.full([1], 1, tl.int1)
    key = rotated(key_at, k_gain, angles, there, d, eps, dim, normed, 1).to(k_pages.dtype.element_ty)
    value = tl.load(qkv + (kv_heads * (group + 1) + kv_head) * dim + d, mask=d < dim, other=0.0)
    value = value.to(tl.float32).to(v_pages.dtype.element_ty)
    page = tl.load(table + position // page_size).to(tl.int64)
    slot = (page * page_size + position % page_size) * kv_stride + kv_head * dim + d
    tl.store(k_pages + slot[None, :], key, mask=(d < dim)[None, :])
    tl.store(v_pages + slot, value, mask=d < dim)
    score = tl.sum(query.to(tl.float32) * key.to(query.dtype).to(tl.float32), axis=1) * scale
    return score, value.to(query.dtype).to(tl.float32)


@triton.jit(do_not_specialize=["window", "splits"])
def decode_attention_kernel(
    qkv, q_gain, k_gain, cos_sin, k_pages, v_pages, out, partial, logs, seq_lens, page_tables,
    scale, eps, qkv_stride, kv_stride, table_stride, window, splits,
    group: tl.constexpr, kv_heads: tl.constexpr, dim: tl.constexpr, page_size: tl.constexpr, normed: tl.constexpr,
    split_up: tl.constexpr, windowed: tl.constexpr, precision: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_d: tl.constexpr, pdl: tl.constexpr = False,
):  # fmt: skip
    """Program (sequence, kv head, split). `qkv` [B, (H + 2 K) * D]; lengths count the new token. See
    `attention_kernel` for the rest."""
    if pdl:
        wait()
    sequence, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    position = tl.load(seq_lens + sequence) - 1
    row, d = tl.arange(0, block_m), tl.arange(0, block_d)
    here, angles, table = qkv + sequence * qkv_stride, cos_sin + position * dim, page_tables + sequence * table_stride
    head_at = here + (kv_head * group + row)[:, None] * dim
    query = rotated(head_at, q_gain, angles, row < group, d, eps, dim, normed, block_m).to(qkv.dtype.element_ty)
    low, last = 0, position
    if windowed:
        low = tl.maximum(0, position - window + 1) // block_n * block_n
    if split_up:
        part = tl.cdiv(tl.cdiv(position - low, block_n), splits) * block_n
        low += split * part
        last = tl.minimum(position, low + part)
    top = tl.full([block_m], float("-inf"), tl.float32)
    total = tl.zeros([block_m], tl.float32)
    acc = tl.zeros([block_m, block_d], tl.float32)
    if split == 0:
        top, value = own_token(
            here, k_gain, angles, query, k_pages, v_pages, table, position, kv_head, scale, eps, kv_stride,
            group, kv_heads, dim, page_size, normed, block_d,
        )  # fmt: skip
        total += 1.0
        acc += value[None, :]
    top, total, acc = attend_blocks(
        query, k_pages, v_pages, table, low, last, position + tl.zeros_like(row), kv_head, top, total, acc, scale,
        kv_stride, window, dim, page_size, windowed, precision, block_n, block_d,
    )  # fmt: skip
    head = sequence * (kv_heads * group) + kv_head * group + row
    store_rows(out, partial, logs, head, row < group, top, total, acc, split, splits, dim, split_up, block_d)
