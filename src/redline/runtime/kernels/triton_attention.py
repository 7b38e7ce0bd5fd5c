"""Causal attention over pages: one Triton kernel for decode, verification and prefill, and one that joins splits.

A program takes one tile: up to `block_m` rows of (query token, head of a kv head's group) of one sequence, so K and V
are read once for the whole group. A decoding sequence is one tile. `splits` programs share a tile's context; each
writes its own weighted values and the log of its weight, and `join_splits_kernel` adds them up. How many splits there
are is fixed at launch, where each begins is computed from the sequence's length on the device: a captured graph stays
right for every length.
"""

from __future__ import annotations

import triton
import triton.language as tl

from redline.runtime.kernels.triton_overlap import wait


@triton.jit
def context_of(
    length, queries, first, split, splits, window,
    group: tl.constexpr, split_up: tl.constexpr, windowed: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr,
):  # fmt: skip
    """[low, last): the context that the rows of a tile can see, and of it this split's part, in whole blocks."""
    last = tl.minimum(length, length - queries + (first + block_m - 1) // group + 1)
    last = tl.where(first < queries * group, last, 0)
    low = 0
    if windowed:
        low = tl.maximum(0, length - queries + first // group - window + 1) // block_n * block_n
    if split_up:
        part = tl.cdiv(tl.cdiv(last - low, block_n), splits) * block_n
        low += split * part
        last = tl.minimum(last, low + part)
    return low, last


@triton.jit
def load_block(pages, where, there, inside, clear: tl.constexpr, whole: tl.constexpr):
    """Elements at `where`; 0 beyond the context (`there`) and beyond a head (`inside`). `clear`: nothing lies beyond
    the context. `whole`: nothing lies beyond a head."""
    if clear and whole:
        block = tl.load(pages + where)
    elif clear:
        block = tl.load(pages + where, mask=inside, other=0.0)
    else:
        block = tl.load(pages + where, mask=there & inside, other=0.0)
    return block


@triton.jit
def attend_block(
    query, k_pages, v_pages, table, n, last, position, kv_head, top, total, acc, scale, kv_stride, window,
    dim: tl.constexpr, page_size: tl.constexpr, windowed: tl.constexpr,
    precision: tl.constexpr, block_d: tl.constexpr, clear: tl.constexpr = False,
):  # fmt: skip
    """Adds the tokens at positions `n` to the running maximum, weight and weighted values of every row. `clear`: every
    row sees all of them, so that nothing has to be masked."""
    d = tl.arange(0, block_d)
    there, inside = n < last, d < dim
    page = load_block(table, n // page_size, there, there, clear, True).to(tl.int64)
    where = (page * page_size + n % page_size) * kv_stride + kv_head * dim
    whole: tl.constexpr = dim == block_d
    key = load_block(k_pages, where[None, :] + d[:, None], there[None, :], inside[:, None], clear, whole)
    weight = tl.dot(query, key.to(query.dtype), input_precision=precision) * scale
    if not clear:
        seen = there[None, :] & (n[None, :] <= position[:, None])
        if windowed:
            seen = seen & (n[None, :] > position[:, None] - window)
        weight = tl.where(seen, weight, float("-inf"))
    higher = tl.maximum(top, tl.max(weight, axis=1))
    # a row that has seen nothing yet keeps weight 0 instead of inf - inf
    anchor = higher if clear else tl.where(higher == float("-inf"), 0.0, higher)
    weight = tl.exp2(weight - anchor[:, None])
    fade = tl.exp2(top - anchor)
    total = total * fade + tl.sum(weight, axis=1)
    value = load_block(v_pages, where[:, None] + d[None, :], there[:, None], inside[None, :], clear, whole)
    acc = tl.dot(weight.to(query.dtype), value.to(query.dtype), acc * fade[:, None], input_precision=precision)
    return higher, total, acc


@triton.jit
def attend_blocks(
    query, k_pages, v_pages, table, low, last, position, kv_head, top, total, acc, scale, kv_stride, window,
    dim: tl.constexpr, page_size: tl.constexpr, windowed: tl.constexpr, precision: tl.constexpr,
    block_n: tl.constexpr, block_d: tl.constexpr, clear: tl.constexpr = False,
):  # fmt: skip
    """`attend_block` from position `low` to `last`."""
    for base in range(low, last, block_n):
        top, total, acc = attend_block(
            query, k_pages, v_pages, table, base + tl.arange(0, block_n), last, position, kv_head, top, total, acc,
            scale, kv_stride, window, dim, page_size, windowed, precision, block_d, clear,
        )  # fmt: skip
    return top, total, acc


@triton.jit
def store_rows(
    out, partial, logs, head, there, top, total, acc, split, splits,
    dim: tl.constexpr, split_up: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    """A tile's result, or with splits its own part and the log of its weight. `head`: rows of the output, where `there`
    says that they exist."""
    d = tl.arange(0, block_d)
    valid = there[:, None] & (d < dim)[None, :]
    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    if split_up:
        one = head * splits + split
        tl.store(partial + one[:, None] * dim + d[None, :], acc, mask=valid)
        log = tl.where(total == 0.0, float("-inf"), top + tl.log2(tl.where(total == 0.0, 1.0, total)))
        tl.store(logs + one, log, mask=there)
    else:
        tl.store(out + head[:, None] * dim + d[None, :], acc.to(out.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["table_stride", "window", "splits"])
def attention_kernel(
    q, k_pages, v_pages, out, partial, logs, tiles, starts, seq_lens, page_tables, scale, kv_stride, table_stride,
    window, splits,
    group: tl.constexpr, kv_heads: tl.constexpr, dim: tl.constexpr, page_size: tl.constexpr,
    split_up: tl.constexpr, tiled: tl.constexpr, windowed: tl.constexpr, precision: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_d: tl.constexpr, pdl: tl.constexpr = False,
):  # fmt: skip
    """Program (tile, kv head, split). `split_up`: there is more than one split. `tiles`: [n, 2] int32 of (sequence,
    first row); without it a tile is a sequence.

    `kv_stride` lies between a token and the next in a page. `scale` includes log2(e): weights are powers of two.
    `precision` is "ieee" for float32 and has no effect on bf16.
    """
    if pdl:
        wait()
    sequence, kv_head, split, first = tl.program_id(0), tl.program_id(1), tl.program_id(2), 0
    if tiled:
        first = tl.load(tiles + sequence * 2 + 1)
        sequence = tl.load(tiles + sequence * 2)
    begin = tl.load(starts + sequence)
    queries = tl.load(starts + sequence + 1) - begin
    length = tl.load(seq_lens + sequence)
    row = first + tl.arange(0, block_m)
    d = tl.arange(0, block_d)
    valid = (row < queries * group)[:, None] & (d < dim)[None, :]
    head = (begin + row // group).to(tl.int64) * (kv_heads * group) + kv_head * group + row % group
    query = tl.load(q + head[:, None] * dim + d[None, :], mask=valid, other=0.0)
    low, last = context_of(length, queries, first, split, splits, window, group, split_up, windowed, block_m, block_n)
    top = tl.full([block_m], float("-inf"), tl.float32)
    total = tl.zeros([block_m], tl.float32)
    acc = tl.zeros([block_m, block_d], tl.float32)
    position = length - queries + row // group
    table = page_tables + sequence.to(tl.int64) * table_stride
    if tiled and not windowed:
        # most of a long prompt's blocks lie before the tile's first token: every row sees all of them
        whole = tl.maximum(tl.minimum(last, length - queries + first // group + 1) - low, 0) // block_n * block_n
        top, total, acc = attend_blocks(
            query, k_pages, v_pages, table, low, low + whole, position, kv_head, top, total, acc, scale, kv_stride,
            window, dim, page_size, windowed, precision, block_n, block_d, True,
        )  # fmt: skip
        low += whole
    top, total, acc = attend_blocks(
        query, k_pages, v_pages, table, low, last, position, kv_head, top, total, acc, scale, kv_stride, window,
        dim, page_size, windowed, precision, block_n, block_d,
    )  # fmt: skip
    store_rows(out, partial, logs, head, row < queries * group, top, total, acc, split, splits, dim, split_up, block_d)


@triton.jit(do_not_specialize=["first", "splits"])
def join_splits_kernel(
    partial, logs, out, first, splits, dim: tl.constexpr, block_s: tl.constexpr, block_d: tl.constexpr,
    pdl: tl.constexpr = False,
):  # fmt: skip
    """Program (token and head, from `first` on): the splits' values, each by its share of the whole weight."""
    if pdl:
        wait()
    row = first + tl.program_id(0).to(tl.int64)
    s = tl.arange(0, block_s)
    d = tl.arange(0, block_d)
    log = tl.load(logs + row * splits + s, mask=s < splits, other=float("-inf"))
    top = tl.max(log, axis=0)
    weight = tl.exp2(log - tl.where(top == float("-inf"), 0.0, top))
    mask = (s < splits)[:, None] & (d < dim)[None, :]
    value = tl.load(partial + (row * splits + s)[:, None] * dim + d[None, :], mask=mask, other=0.0)
    total = tl.sum(weight, axis=0)
    result = tl.sum(value * weight[:, None], axis=0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + row * dim + d, result.to(out.dtype.element_ty), mask=d < dim)
