"""Triton kernels around the model in a decode step: its inputs from the tables of the rows, and the token it chose.

Drawing takes three launches: rows that top-k, top-p or min-p narrow (`filter_kernel`, which has nothing to do for
others), the weight and the best token of each part of the vocabulary, and the choice, which goes into the tables, so
that the next step can start without the host. A token is drawn as `runtime/sampler.py` draws it, by one number
u(seed, position): the first token at which the summed weights pass u times their total, in the order of the vocabulary,
or from the most likely down when the row is narrowed. So a request draws the same in any batch and on either path, up
to the rounding of float32 sums.
"""

from __future__ import annotations

import triton
import triton.language as tl

from redline.runtime.kernels.triton_overlap import wait


@triton.jit
def prepare_kernel(
    rows, token, position, table, ids, positions, slots, seq_lens, page_tables,
    pages, table_stride, page_size: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Program i fills entry i of the step's batch from table row rows[i]. Only pages in use are copied."""
    i = tl.program_id(0)
    row = tl.load(rows + i).to(tl.int64)
    at = tl.load(position + row)
    tl.store(ids + i, tl.load(token + row).to(tl.int64))
    tl.store(positions + i, at.to(tl.int64))
    tl.store(seq_lens + i, at + 1)
    page = tl.load(table + row * pages + at // page_size).to(tl.int64)
    tl.store(slots + i, page * page_size + at % page_size)
    for base in range(0, at // page_size + 1, block):
        n = base + tl.arange(0, block)
        used = n <= at // page_size
        value = tl.load(table + row * pages + n, mask=used, other=0)
        tl.store(page_tables + i.to(tl.int64) * table_stride + n, value, mask=used)


@triton.jit
def ordered(x):
    """A float's bits as an integer that is ordered as the float is; its own inverse on the bits."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def search(
    logits, vocab, low, high, need, peak, inverse, by_mass: tl.constexpr, block: tl.constexpr, ways: tl.constexpr
):
    """The largest key t in [low, high] with at least `need` tokens, or more mass than `need`, at or above it; `low`
    when there is none. Each pass over the row splits what is left into `ways` + 1 parts."""
    low = low.to(tl.int64)
    high = high.to(tl.int64)
    j = tl.arange(0, ways)
    while low < high:
        step = tl.maximum((high - low) // (ways + 1), 1)
        pivot = tl.minimum(low + (j + 1).to(tl.int64) * step, high)
        held = tl.zeros([ways], tl.float32)
        for base in range(0, vocab, block):
            n = base + tl.arange(0, block)
            x = tl.load(logits + n, mask=n < vocab, other=float("-inf")).to(tl.float32)
            one = tl.where(n < vocab, 1.0, 0.0)
            if by_mass:
                one = tl.exp((x - peak) * inverse)
            held += tl.sum(tl.where(ordered(x).to(tl.int64)[None, :] >= pivot[:, None], one[None, :], 0.0), axis=1)
        # a mass must pass what is needed, a count must reach it
        enough = held > (need if by_mass else need - 0.5)
        low = tl.maximum(low, tl.max(tl.where(enough, pivot, low), axis=0))
        high = tl.minimum(high, tl.min(tl.where(enough, high, pivot - 1), axis=0))
    return low.to(tl.int32)


@triton.jit
def above(logits, vocab, key, peak, inverse, block: tl.constexpr):
    """How many tokens lie above a key, their weight, and how many lie at it."""
    count = tl.zeros([block], tl.int32)
    same = tl.zeros([block], tl.int32)
    mass = tl.zeros([block], tl.float32)
    for base in range(0, vocab, block):
        n = base + tl.arange(0, block)
        x = tl.load(logits + n, mask=n < vocab, other=float("-inf")).to(tl.float32)
        higher = (ordered(x) > key) & (n < vocab)
        count += higher.to(tl.int32)
        same += ((ordered(x) == key) & (n < vocab)).to(tl.int32)
        mass += tl.where(higher, tl.exp((x - peak) * inverse), 0.0)
    return tl.sum(count, axis=0), tl.sum(mass, axis=0), tl.sum(same, axis=0)


@triton.jit
def at_key(logits, vocab, key, nth, block: tl.constexpr):
    """The `nth` token, by id, whose logit has this key."""
    found = tl.full([], 0, tl.int32)
    before = tl.full([], 0, tl.int32)
    for base in range(0, vocab, block):
        n = base + tl.arange(0, block)
        x = tl.load(logits + n, mask=n < vocab, other=float("-inf")).to(tl.float32)
        same = ((ordered(x) == key) & (n < vocab)).to(tl.int32)
        rank = before + tl.cumsum(same, axis=0)
        found += tl.sum(tl.where((rank == nth + 1) & (same > 0), n, 0), axis=0)
        before += tl.sum(same, axis=0)
    return found


@triton.jit
def narrow(
    line, vocab, k, p, floor, heat, peak, block: tl.constexpr, ways: tl.constexpr
):  # fmt: skip
    """What min-p, top-k and top-p keep, as (key, ties, weight above the key): everything above the key, and the first
    `ties` tokens at it."""
    inverse = 1.0 / heat
    high = ordered(peak)
    key = ordered(tl.full([], float("-inf"), tl.float32))
    if floor > 0.0:
        key = tl.minimum(ordered(peak + tl.log(floor) * heat), high)
    if (k > 0) & (k < vocab):
        key = tl.maximum(key, search(line, vocab, key, high, k.to(tl.float32), peak, inverse, False, block, ways))
    count, mass, ties = above(line, vocab, key, peak, inverse, block)
    if (k > 0) & (k < vocab):
        ties = tl.maximum(tl.minimum(ties, k - count), 0)
    if p < 1.0:
        one = tl.exp((ordered_back(key) - peak) * inverse)
        need = p * (mass + ties.to(tl.float32) * one)
        if mass >= need:
            # everything at the key is out: the border is higher; the last that begins before `need` stays
            key = search(line, vocab, key, high, need * 0.9999999, peak, inverse, True, block, ways)
            count, mass, ties = above(line, vocab, key, peak, inverse, block)
            one = tl.exp((ordered_back(key) - peak) * inverse)
        ties = tl.minimum(ties, tl.maximum(tl.ceil((need - mass) / one), 1.0).to(tl.int32))
    return key, ties, mass


@triton.jit
def filter_kernel(
    logits, rows, at, temperature, top_k, top_p, min_p, seed_low, seed_high, forced, vocab, stride,
    block: tl.constexpr, ways: tl.constexpr, pdl: tl.constexpr = False,
):  # fmt: skip
    """forced[i]: the token of a row that min-p, top-k or top-p narrow, drawn; -1 for other rows, which cost nothing.

    In the order (logit descending, id ascending) each filter keeps a prefix. The draw is a search for the key at which
    the weights, from the top, pass u times what is kept.
    """
    if pdl:
        wait()
    i = tl.program_id(0)
    row = tl.load(rows + i)
    heat = tl.load(temperature + row)
    k = tl.load(top_k + row)
    p = tl.load(top_p + row)
    floor = tl.load(min_p + row)
    token = tl.full([], -1, tl.int32)
    if (heat > 0.0) & ((k > 0) | (p < 1.0) | (floor > 0.0)):
        line = logits + i.to(tl.int64) * stride
        inverse = 1.0 / heat
        most = tl.full([block], float("-inf"), tl.float32)
        for base in range(0, vocab, block):
            n = base + tl.arange(0, block)
            most = tl.maximum(most, tl.load(line + n, mask=n < vocab, other=float("-inf")).to(tl.float32))
        peak = tl.max(most, axis=0)
        key, ties, mass = narrow(line, vocab, k, p, floor, heat, peak, block, ways)
        one = tl.exp((ordered_back(key) - peak) * inverse)
        u = uniform(tl.load(seed_low + row), tl.load(seed_high + row), tl.load(at + i))
        goal = (u * (mass + ties.to(tl.float32) * one).to(tl.float64)).to(tl.float32)
        if mass > goal:
            key = search(line, vocab, key + 1, ordered(peak), goal, peak, inverse, True, block, ways)
            _, mass, ties = above(line, vocab, key, peak, inverse, block)
            one = tl.exp((ordered_back(key) - peak) * inverse)
        nth = tl.minimum(tl.floor((goal - mass) / one).to(tl.int32), ties - 1)
        token = at_key(line, vocab, key, tl.maximum(nth, 0), block)
    tl.store(forced + i, token)


@triton.jit
def ordered_back(key):
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def mix(z):
    """SplitMix64's finaliser on unsigned 64-bit integers, as in `runtime/draws.py`."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


@triton.jit
def uniform(low, high, position):
    """The number in [0, 1) that `draws.uniform` gives for a token: float64, 52 bits."""
    seed = (low.to(tl.int64) & 0xFFFFFFFF).to(tl.uint64) | ((high.to(tl.int64) & 0xFFFFFFFF).to(tl.uint64) << 32)
    start = mix(seed + 0x9E3779B97F4A7C15)
    bits = mix(start + (position.to(tl.int64) + 1).to(tl.uint64) * 0x9E3779B97F4A7C15)
    return (bits >> 12).to(tl.float64) * 2.220446049250313e-16


@triton.jit
def part_kernel(
    logits, rows, temperature, best, choice, mass, bad, vocab, stride, parts, block: tl.constexpr,
    pdl: tl.constexpr = False,
):  # fmt: skip
    """Program (i, part): the largest logit of `block` tokens, its token, the weight of all relative to that logit, and
    how many logits are not numbers."""
    if pdl:
        wait()
    i = tl.program_id(0)
    part = tl.program_id(1)
    n = part * block + tl.arange(0, block)
    inside = n < vocab
    x = tl.load(logits + i.to(tl.int64) * stride + n, mask=inside, other=float("-inf")).to(tl.float32)
    wrong = tl.sum(((x != x) & inside).to(tl.int32), axis=0)
    value = tl.where(x == x, x, float("-inf"))
    most = tl.max(value, axis=0)
    heat = tl.load(temperature + tl.load(rows + i))
    anchor = tl.where(most == float("-inf"), 0.0, most)
    weight = tl.exp((value - anchor) / tl.where(heat > 0.0, heat, 1.0))
    weight = tl.where(inside, weight, 0.0)
    at = i * parts + part
    tl.store(best + at, most)
    tl.store(choice + at, tl.min(tl.where((value == most) & inside, n, 2147483647), axis=0))
    tl.store(mass + at, tl.sum(weight, axis=0))
    tl.store(bad + at, wrong)


@triton.jit
def choose_kernel(
    logits, rows, at, temperature, seed_low, seed_high, forced, best, choice, mass, bad, token, position, out,
    vocab, stride, parts, last_row, block: tl.constexpr, parts_block: tl.constexpr, pdl: tl.constexpr = False,
):  # fmt: skip
    """Program i: the token of row i goes to out[i] and into the tables. A row with a NaN gives -1, and 0 to the tables.

    Greedy takes the best part's token. Otherwise the token at which the weights, summed in the order of the vocabulary,
    pass u times their total: first the part, then the place in it. `last_row` is padding: its tables stay.
    """
    if pdl:
        wait()
    i = tl.program_id(0)
    row, place = tl.load(rows + i), tl.load(at + i)
    heat = tl.load(temperature + row)
    p = tl.arange(0, parts_block)
    there = p < parts
    top = tl.load(best + i * parts + p, mask=there, other=float("-inf"))
    tokens = tl.load(choice + i * parts + p, mask=there, other=2147483647)
    wrong = tl.sum(tl.load(bad + i * parts + p, mask=there, other=0), axis=0)
    peak = tl.max(top, axis=0)
    wrong += (tl.abs(peak) == float("inf")).to(tl.int32)
    chosen = tl.min(tl.where((top == peak) & there, tokens, 2147483647), axis=0)
    narrowed = tl.load(forced + i)
    if narrowed >= 0:
        chosen = narrowed
    elif (heat > 0.0) & (wrong == 0):
        held = tl.load(mass + i * parts + p, mask=there, other=0.0)
        held = tl.where(held > 0.0, held * tl.exp((top - peak) / heat), 0.0)
        before = tl.cumsum(held, axis=0)
        total = tl.sum(held, axis=0)
        goal = (uniform(tl.load(seed_low + row), tl.load(seed_high + row), place) * total.to(tl.float64)).to(tl.float32)
        part = tl.min(tl.where((before > goal) & (held > 0.0), p, parts_block), axis=0)
        # rounding can leave no part above the goal: then it is the last one with any weight
        part = tl.where(part < parts_block, part, tl.max(tl.where(held > 0.0, p, 0), axis=0))
        rest = goal - tl.sum(tl.where(p < part, held, 0.0), axis=0)
        n = part * block + tl.arange(0, block)
        x = tl.load(logits + i.to(tl.int64) * stride + n, mask=n < vocab, other=float("-inf")).to(tl.float32)
        weight = tl.where(n < vocab, tl.exp((x - peak) / heat), 0.0)
        passed = (tl.cumsum(weight, axis=0) > rest) & (weight > 0.0)
        first = tl.min(tl.where(passed, n, 2147483647), axis=0)
        chosen = tl.where(first < 2147483647, first, tl.max(tl.where(weight > 0.0, n, 0), axis=0))
    tl.store(out + i, tl.where(wrong > 0, -1, chosen))
    if row < last_row:
        tl.store(token + row, tl.where(wrong > 0, 0, chosen))
        tl.store(position + row, place)
