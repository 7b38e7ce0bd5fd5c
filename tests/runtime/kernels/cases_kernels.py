"""Run by `test_against_torch.py` with TRITON_INTERPRET=1. float16 stands for bfloat16, whose products are not
interpreted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from redline.runtime.batch import Batch
from redline.runtime.kernels.plan import Plan
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.kernels.triton import Attending, TritonKernels
from redline.runtime.kernels.triton_linear import NOTHING, Around, Way, candidates, gemv
from redline.runtime.linear import FP8, FP8_MAX, Fp8, Plain, to_fp8

EXACT, HALF = (torch.float32, 2e-6), (torch.float16, 2e-3)
PAGES = 64


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def near(found: torch.Tensor, right: torch.Tensor, most: float) -> None:
    error = (found.float() - right).norm() / right.norm()
    assert float(error) <= most  # NaN is not


def ragged(queries: Sequence[int], lengths: Sequence[int], page_size: int, host: bool = True) -> Batch:
    """Sequences on scattered pages. `host` False: nothing is known on the host, as in a captured step."""
    order = torch.randperm(PAGES - 1, generator=torch.Generator().manual_seed(1)) + 1
    tables = torch.zeros(len(lengths), 24, dtype=torch.int32)
    slots, positions, used, starts = [], [], 0, [0]
    for i, (count, length) in enumerate(zip(queries, lengths, strict=True)):
        need = -(-length // page_size)
        tables[i, :need] = order[used : used + need]
        used += need
        starts.append(starts[-1] + count)
        positions += list(range(length - count, length))
        slots += [int(tables[i, p // page_size]) * page_size + p % page_size for p in range(length - count, length)]
    return Batch(
        ids=torch.zeros(starts[-1], dtype=torch.int64),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        starts=torch.tensor(starts, dtype=torch.int32),
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        page_tables=tables,
        logits_at=torch.tensor(starts[1:]) - 1,
        max_query=max(queries),
        max_seq=max(lengths),
        host_starts=starts if host else None,
        host_seq_lens=list(lengths) if host else None,
    )


def attended(q: torch.Tensor, kv: tuple[torch.Tensor, torch.Tensor], batch: Batch, window: int | None) -> torch.Tensor:
    """Attention by its definition, a token at a time, in float32."""
    group, page_size = q.shape[1] // kv[0].shape[2], kv[0].shape[1]
    rows = []
    for i, (first, end) in enumerate(pairwise(batch.starts.tolist())):
        length = int(batch.seq_lens[i])
        at = torch.arange(length)
        slots = batch.page_tables[i][at // page_size].long() * page_size + at % page_size
        keys, values = (pages.float().flatten(0, 1)[slots].repeat_interleave(group, 1) for pages in kv)
        for token in range(first, end):
            position = length - end + token
            low = 0 if window is None else max(0, position - window + 1)
            scores = torch.einsum("hd,nhd->hn", q[token].float(), keys[low : position + 1]) * q.shape[2] ** -0.5
            rows.append(torch.einsum("hn,nhd->hd", scores.softmax(-1), values[low : position + 1]).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize(("dtype", "most"), [EXACT, HALF])
@pytest.mark.parametrize(("rows", "columns"), [(1, 256), (5, 96), (3, 1)])
def test_norms_and_activation(dtype: torch.dtype, most: float, rows: int, columns: int) -> None:
    own, plain = TritonKernels(), TorchKernels()
    x, residual, weight = (
        random(i, *s, dtype=dtype) for i, s in enumerate([(rows, columns), (rows, columns), (columns,)])
    )
    near(own.rms_norm(x, weight, 1e-5), plain.rms_norm(x.float(), weight.float(), 1e-5), most)
    normed, total = plain.add_rms_norm(x.float(), residual.clone().float(), weight.float(), 1e-5)
    found, sums = own.add_rms_norm(x, residual.clone(), weight, 1e-5)
    near(found, normed, most)
    near(sums, total, most)
    both = torch.cat([x, residual], 1)
    near(own.silu_mul(both), plain.silu_mul(both.float()), most)


def test_norm_of_each_head_of_a_slice() -> None:
    whole, weight = random(1, 6, 9, 40), random(2, 40)
    near(
        TritonKernels().rms_norm(whole[:, 2:7], weight, 1e-6),
        TorchKernels().rms_norm(whole[:, 2:7], weight, 1e-6),
        2e-6,
    )


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(8, 2, 64), (14, 2, 64), (3, 3, 40)])
def test_rope_and_pages(heads: int, kv_heads: int, dim: int) -> None:
    batch = ragged([1, 7], [30, 40], 16)
    q, k, v = random(1, 8, heads + 2 * kv_heads, dim).split_with_sizes((heads, kv_heads, kv_heads), 1)
    angles = random(2, 64, dim // 2)
    table = torch.cat([angles.cos(), angles.sin()], 1)
    first, second = ((torch.zeros(PAGES, 16, kv_heads, dim), torch.zeros(PAGES, 16, kv_heads, dim)) for _ in range(2))
    near(
        TritonKernels().rope_append(q, k, v, table, batch, first),
        TorchKernels().rope_append(q, k, v, table, batch, second),
        1e-6,
    )
    near(first[0], second[0], 1e-6)
    assert torch.equal(first[1], second[1])


DECODES, MIXED, SHORT = ([1, 1, 1], [5, 200, 70]), ([1, 1, 20, 33], [40, 7, 70, 33]), ([5, 1], [90, 40])
GROUPED, PAGES_OF_32, ODD = (EXACT, (8, 2, 64, 16)), (HALF, (4, 4, 128, 32)), (EXACT, (14, 2, 40, 16))


# any two of batch, shape, window and what the host knows meet; so does every batch with every shape
@pytest.mark.parametrize(
    ("batch_of", "shape", "host", "window"),
    [
        (DECODES, GROUPED, True, None), (DECODES, PAGES_OF_32, False, 24), (DECODES, ODD, False, None),
        (MIXED, GROUPED, False, 24), (MIXED, PAGES_OF_32, True, None), (MIXED, ODD, True, 24),
        (SHORT, GROUPED, False, None), (SHORT, PAGES_OF_32, True, 24), (SHORT, ODD, False, 24),
        (DECODES, GROUPED, True, 24), (MIXED, PAGES_OF_32, False, None), (SHORT, ODD, True, None),
    ],
)  # fmt: skip
def test_attention(
    batch_of: tuple[list[int], list[int]],
    shape: tuple[tuple[torch.dtype, float], tuple[int, int, int, int]],
    host: bool,
    window: int | None,
) -> None:
    (queries, lengths), ((dtype, most), (heads, kv_heads, dim, page_size)) = batch_of, shape
    batch = ragged(queries, lengths, page_size, host)
    # K and V of a token may lie behind each other
    both = random(3, PAGES, page_size, 2 * kv_heads, dim, dtype=dtype)
    kv = both.split_with_sizes((kv_heads, kv_heads), 2)
    q = random(5, sum(queries), heads, dim, dtype=dtype)
    found = TritonKernels(processors=4).attention(q, (kv[0], kv[1]), batch, dim**-0.5, window)
    near(found, attended(q, (kv[0], kv[1]), batch, window), most)


@pytest.mark.parametrize(("heads", "kv_heads", "dim", "processors"), [(8, 2, 64, 4), (14, 2, 40, 32)])
def test_prompts_with_blocks_that_need_no_mask(heads: int, kv_heads: int, dim: int, processors: int) -> None:
    """Whole blocks before a tile's first token, beside tiles that have none of them and one that ends in a block."""
    queries, lengths = [20, 33, 3], [200, 33, 128]
    batch = ragged(queries, lengths, 16)
    kv = random(3, 2, PAGES, 16, kv_heads, dim)
    q = random(5, sum(queries), heads, dim)
    found = TritonKernels(processors=processors).attention(q, (kv[0], kv[1]), batch, dim**-0.5, None)
    near(found, attended(q, (kv[0], kv[1]), batch, None), 2e-6)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "normed", "splits", "window"),
    [
        (8, 2, 64, False, 1, None), (8, 2, 64, False, 4, 24), (14, 2, 64, True, 4, None), (14, 2, 64, True, 1, 24),
        (3, 3, 40, True, 1, None), (3, 3, 40, True, 4, 24),
    ],
)  # fmt: skip
def test_decode_from_the_projection(
    heads: int, kv_heads: int, dim: int, normed: bool, splits: int, window: int | None
) -> None:
    """One launch does what norms, rotation, page write and attention do one after the other."""
    batch = ragged([1, 1, 1, 1], [70, 1, 200, 64], 16, host=False)
    plain, own = TorchKernels(), TritonKernels()
    own.attending[4] = Attending(splits, 32)
    projected, gains = random(1, 4, (heads + 2 * kv_heads) * dim), (random(7, dim), random(8, dim))
    angles = random(2, 256, dim // 2)
    table = torch.cat([angles.cos(), angles.sin()], 1)
    first, second = ((random(3, PAGES, 16, kv_heads, dim), random(4, PAGES, 16, kv_heads, dim)) for _ in range(2))
    q, k, v = projected.view(4, -1, dim).split_with_sizes((heads, kv_heads, kv_heads), 1)
    if normed:
        q, k = plain.rms_norm(q, gains[0], 1e-5), plain.rms_norm(k, gains[1], 1e-5)
    q = plain.rope_append(q, k, v, table, batch, second)
    right = attended(q, second, batch, window)
    norms = gains if normed else None
    found = own.decode_attention(projected, norms, 1e-5, table, batch, first, dim**-0.5, window)
    near(found, right, 2e-6)
    near(first[0], second[0], 1e-6)
    assert torch.equal(first[1], second[1])


def test_float8_pages() -> None:
    """Read as they are; what is written is near, since the interpreter's own cast loses a carry."""
    batch = ragged([1, 1, 20], [40, 70, 60], 16)
    kv = tuple(random(seed, PAGES, 16, 2, 64).to(FP8) for seed in (3, 4))
    q = random(5, 22, 8, 64)
    near(
        TritonKernels().attention(q, (kv[0], kv[1]), batch, 0.125, None), attended(q, (kv[0], kv[1]), batch, None), 2e-6
    )
    batch = ragged([1, 1], [70, 200], 16, host=False)
    projected, table = random(1, 2, 12 * 64), torch.cat([torch.ones(256, 32), torch.zeros(256, 32)], 1)
    found = TritonKernels().decode_attention(projected, None, 0.0, table, batch, (kv[0], kv[1]), 0.125, None)
    k, v = projected.view(2, 12, 64)[:, 8:10], projected.view(2, 12, 64)[:, 10:]
    written = [pages.flatten(0, 1)[batch.slots].float() for pages in kv]
    assert float((written[0] - k).abs().median()) < 0.05
    assert float((written[1] - v).abs().median()) < 0.05
    near(found, attended(projected.view(2, 12, 64)[:, :8], (kv[0], kv[1]), batch, None), 5e-2)


@pytest.mark.parametrize("splits", [1, 2, 8, 16])
def test_every_number_of_splits_attends_alike(splits: int) -> None:
    """Also more splits than there are pages to share."""
    batch = ragged([1, 1], [200, 1], 16, host=False)
    kv = random(1, PAGES, 16, 2, 64), random(2, PAGES, 16, 2, 64)
    q = random(3, 2, 8, 64)
    kernels = TritonKernels()
    kernels.attending[2] = Attending(splits)
    near(kernels.attention(q, kv, batch, 0.125, None), attended(q, kv, batch, None), 2e-6)


def test_decodes_beside_a_prompt_touch_their_own_rows_only() -> None:
    batch = ragged([1, 1, 20], [40, 70, 60], 16)
    kv = random(3, PAGES, 16, 2, 64), random(4, PAGES, 16, 2, 64)
    q, out = random(5, 22, 8, 64), torch.full((22, 512), 7.0)
    TritonKernels().attend(q, kv, batch, out, 64**-0.5, None, Plan(2, None, 16), Attending(4))
    near(out[:2], attended(q, kv, batch, None)[:2], 2e-6)
    assert bool((out[2:] == 7).all())


def product(way: Way, x: torch.Tensor, one: Plain | Fp8, around: Around = NOTHING) -> torch.Tensor:
    """With rows rounded where the way wants them so, by torch: the interpreter's own cast loses a carry."""
    if not way.rounds:
        return way.product(x, one, around)
    scales = x.abs().amax(1, keepdim=True) / FP8_MAX
    return way.product(to_fp8(x / scales), one, around._replace(scales=scales, dtype=x.dtype))


def as_read(way: Way, x: torch.Tensor) -> torch.Tensor:
    """What the way makes of its input."""
    scales = x.abs().amax(1, keepdim=True) / FP8_MAX
    return to_fp8(x / scales).float() * scales if way.rounds else x


@pytest.mark.parametrize(("tokens", "biased"), [(1, True), (3, False), (16, True), (40, False)])
def test_products_of_few_rows(tokens: int, biased: bool) -> None:
    weight, x = random(1, 70, 1104) * 0.1, random(2, tokens, 1104)
    plain = Plain(weight, random(3, 70) if biased else None)
    for one in (plain, Fp8.quantize(weight, plain.bias)):
        ways = candidates(tokens, one, 16)
        assert ways or (one is plain and tokens > 16)
        for way in ways.values():
            right = torch.nn.functional.linear(as_read(way, x), one.dequantized(), one.bias)
            near(product(way, x, one), right, 2e-6)
            residual = random(5, tokens, 70)
            assert product(way, x, one, Around(residual=residual)) is residual
            near(residual, random(5, tokens, 70) + right, 2e-6)


@pytest.mark.parametrize(("tokens", "quantized"), [(1, False), (1, True), (3, True), (16, False)])
def test_products_with_a_norm_before_and_a_gate_behind(tokens: int, quantized: bool) -> None:
    weight, x, gain = random(1, 70, 1104) * 0.1, random(2, tokens, 1104), random(4, 1104)
    one = Fp8.quantize(weight, random(3, 70)) if quantized else Plain(weight, random(3, 70))
    plain = TorchKernels()
    for way in candidates(tokens, one, 16).values():
        around = NOTHING if way.rounds else Around(gain=gain, eps=1e-5)
        read = as_read(way, x) if way.rounds else plain.rms_norm(x, gain, 1e-5)
        right = torch.nn.functional.linear(read, one.dequantized(), one.bias)
        out = torch.empty(tokens, 70)
        assert product(way, x, one, around._replace(out=out)) is out
        near(out, right, 2e-6)
        near(product(way, x, one, around._replace(gated=True)), plain.silu_mul(right), 2e-6)


def test_a_program_takes_several_blocks_of_a_row() -> None:
    weight, x = Plain(random(1, 70, 128), random(3, 70)), random(2, 1, 128)
    right = torch.nn.functional.linear(x, weight.weight, weight.bias)
    near(gemv(x, weight, block_n=4, warps=4, programs=3), right, 2e-6)
    near(gemv(x, weight, Around(gated=True), block_n=4, warps=4, programs=3), TorchKernels().silu_mul(right), 2e-6)


def test_counters_are_left_at_zero() -> None:
    weight, x = Plain(random(1, 64, 1024)), random(2, 4, 1024)
    split = [way for name, way in candidates(4, weight, 16).items() if "/" in name]
    assert split
    found = [product(way, x, weight) for way in split for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(found[::2], found[1::2], strict=True))


def test_norm_and_activation_of_rounded_rows() -> None:
    own, plain = TritonKernels(), TorchKernels()
    x, residual, gain = random(1, 3, 96), random(2, 3, 96), random(3, 96)
    for added in (None, x):
        normed, total = plain.add_rms_norm(torch.zeros_like(x) if added is None else x, residual.clone(), gain, 1e-5)
        found = residual.clone()
        rounded, scales = own.norm_quantize(added, found, gain, 1e-5)
        near(found, total, 2e-6)
        assert torch.allclose(scales[:, 0], normed.abs().amax(1) / 448, rtol=1e-5)
        assert rounded.shape == x.shape
    both = torch.cat([x, residual], 1)
    _, scales = own.silu_quantize(both)
    assert torch.allclose(scales[:, 0], plain.silu_mul(both).abs().amax(1) / 448, rtol=1e-5)


def test_rows_to_float8() -> None:
    x = random(1, 3, 100) * torch.tensor([[1.0], [100.0], [0.0]])
    rounded, scales = TritonKernels().quantize_rows(x)
    assert torch.allclose(scales[:2, 0], x[:2].abs().amax(1) / 448)
    # the interpreter's own cast to float8 loses a carry, so that a value can come out at half its size
    right = (x / scales).to(torch.float8_e4m3fn).float()
    assert bool(
        ((rounded.float() == right) | (rounded.float() * 2 - right).abs().le(right.abs() / 8)).float().mean() > 0.4
    )
    assert bool((rounded[2].float() == 0).all())
