"""Kernels in bfloat16 against plain torch in float32, for `engine_check.py`: relative error at most 1e-2 (5e-2 where
rows are rounded to float8), drawn tokens the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from redline.runtime.batch import Batch
from redline.runtime.kernels.draw import TorchDraw
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.kernels.triton import TritonKernels
from redline.runtime.kernels.triton_decode import TritonDraw
from redline.runtime.kernels.triton_linear import Around, Way, candidates
from redline.runtime.kernels.warm import run_all
from redline.runtime.linear import FP8, Fp8, Plain
from redline.runtime.state import Tables

GPU = "cuda"
failures: list[str] = []


def hold(what: str, value: float, most: float) -> None:
    """NaN fails too."""
    good = value <= most
    print(f"{'ok  ' if good else 'FAIL'} {what}: {value:.3g} (at most {most:g})", flush=True)
    if not good:
        failures.append(f"{what}: {value:.3g} > {most:g}")


def error_of(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.float() - right.float()).norm() / right.float().norm().clamp(min=1e-9))


def half(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=GPU).to(torch.bfloat16)


def ragged(queries: list[int], lengths: list[int], page_size: int, pages: int) -> Batch:
    """A batch whose pages are scattered; the last pages are left for others."""
    starts = [0]
    for count in queries:
        starts.append(starts[-1] + count)
    width = 64
    tables = torch.zeros(len(lengths), width, dtype=torch.int32)
    order = (torch.randperm(pages - 1) + 1).to(torch.int32)
    used, slots, positions = 0, [], []
    for i, (count, length) in enumerate(zip(queries, lengths, strict=True)):
        need = -(-length // page_size)
        tables[i, :need] = order[used : used + need]
        used += need
        for position in range(length - count, length):
            slots.append(int(tables[i, position // page_size]) * page_size + position % page_size)
            positions.append(position)
    return Batch(
        ids=torch.zeros(starts[-1], dtype=torch.int64, device=GPU),
        positions=torch.tensor(positions, device=GPU),
        slots=torch.tensor(slots, device=GPU),
        starts=torch.tensor(starts, dtype=torch.int32, device=GPU),
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=GPU),
        page_tables=tables.to(GPU),
        logits_at=torch.tensor(starts[1:], device=GPU) - 1,
        max_query=max(queries),
        max_seq=max(lengths),
        host_starts=starts,
        host_seq_lens=lengths,
    )


def pointwise() -> None:
    own, plain = TritonKernels(), TorchKernels()
    for rows, columns in ((1, 4096), (7, 2048), (300, 896)):
        x, residual, weight = half(rows, columns), half(rows, columns), half(columns)
        right = plain.rms_norm(x.float(), weight.float(), 1e-5)
        hold(f"rms_norm {rows}x{columns}", error_of(own.rms_norm(x, weight, 1e-5), right), 1e-2)
        normed, total = plain.add_rms_norm(x.float(), residual.float(), weight.float(), 1e-5)
        found, sums = own.add_rms_norm(x, residual.clone(), weight, 1e-5)
        hold(f"add_rms_norm {rows}x{columns}", max(error_of(found, normed), error_of(sums, total)), 1e-2)
        right = plain.silu_mul(torch.cat([x, residual], 1).float())
        hold(f"silu_mul {rows}x{columns}", error_of(own.silu_mul(torch.cat([x, residual], 1)), right), 1e-2)
        rounded, scales = own.quantize_rows(x)
        hold(f"quantize_rows {rows}x{columns}", error_of(rounded.float() * scales, x), 5e-2)
    for heads, kv_heads, dim in ((32, 8, 128), (32, 8, 64), (14, 2, 64)):
        batch = ragged([1, 1, 40], [70, 300, 40], 32, 64)
        both = half(42, heads + 2 * kv_heads, dim)
        q, k, v = both.split((heads, kv_heads, kv_heads), 1)
        angles = torch.rand(512, dim // 2, device=GPU) * 6
        table = torch.cat([angles.cos(), angles.sin()], 1)
        pages = [torch.zeros(64, 32, kv_heads, dim, device=GPU, dtype=torch.bfloat16) for _ in range(2)]
        wide = [torch.zeros(64, 32, kv_heads, dim, device=GPU) for _ in range(2)]
        found = own.rope_append(q, k, v, table, batch, (pages[0], pages[1]))
        right = plain.rope_append(q.float(), k.float(), v.float(), table, batch, (wide[0], wide[1]))
        worst = max(error_of(found, right), error_of(pages[0], wide[0]), error_of(pages[1], wide[1]))
        hold(f"rope_append {heads}/{kv_heads}x{dim}", worst, 1e-2)


def attention() -> None:
    own, plain = TritonKernels(), TorchKernels()
    cases = (
        ([1], [700]),
        ([1] * 5, [5, 1, 900, 64, 65]),
        ([1, 1, 50, 333], [300, 7, 400, 333]),
        ([5, 3], [900, 40]),
        ([1] * 200, [100] * 200),
    )
    for heads, kv_heads, dim in ((32, 8, 128), (32, 8, 64), (14, 2, 64)):
        for queries, lengths in cases:
            for window in (None, 100):
                batch = ragged(queries, lengths, 32, 1024)
                kv = half(1024, 32, kv_heads, dim), half(1024, 32, kv_heads, dim)
                q = half(sum(queries), heads, dim)
                for pages in (kv, (kv[0].to(FP8), kv[1].to(FP8))):
                    right = plain.attention(q.float(), (pages[0].float(), pages[1].float()), batch, dim**-0.5, window)
                    found = own.attention(q, pages, batch, dim**-0.5, window)
                    name = f"attention {heads}/{kv_heads}x{dim} {pages[0].dtype} queries {queries[:4]} "
                    hold(name + f"lengths {lengths[:4]} window {window}", error_of(found, right), 1e-2)


def products() -> None:
    own, cases = TritonKernels(), list(product_cases())
    run_all(torch.device(GPU), [partial(around, *case) for case in cases])()
    for case in cases:
        check_product(*case)
    for n, k in ((3072, 2048), (4096, 14336)):
        quantized = Fp8.quantize(half(n, k) * 0.02)
        for tokens in (1, 7, 100):
            x = half(tokens, k)
            right = torch.nn.functional.linear(x.float(), quantized.dequantized())
            hold(f"fp8 product {tokens}x{k}x{n}", error_of(own.linear(x, quantized), right), 5e-2)
    for rows, columns in ((3, 4096), (200, 14336)):
        x, residual, gain = half(rows, columns), half(rows, columns), half(columns)
        normed, _ = TorchKernels().add_rms_norm(x.float(), residual.float(), gain.float(), 1e-5)
        rounded, scales = own.norm_quantize(x, residual.clone(), gain, 1e-5)
        hold(f"norm_quantize {rows}x{columns}", error_of(rounded.float() * scales, normed), 5e-2)
        rounded, scales = own.silu_quantize(torch.cat([x, residual], 1))
        right = TorchKernels().silu_mul(torch.cat([x, residual], 1).float())
        hold(f"silu_quantize {rows}x{columns}", error_of(rounded.float() * scales, right), 5e-2)


Case = tuple[str, Way, torch.Tensor, Plain | Fp8, torch.Tensor, torch.Tensor]


def product_cases() -> Iterator[Case]:
    """(name, product, input, weight, residual, gain) of every own product, on shapes with and without remainders."""
    for n, k, biased, sizes in (
        (3072, 2048, False, (1, 7, 31, 64)),
        (3072, 2048, True, (1, 7)),
        (1000, 14336, False, (1, 16)),
    ):
        dense = half(n, k) * 0.02
        bias = half(n) if biased else None
        for weight in (Plain(dense, bias), Fp8.quantize(dense, bias)):
            for tokens in sizes:
                x, residual, gain = half(tokens, k), half(tokens, n), half(k)
                for name, way in candidates(tokens, weight).items():
                    what = f"{type(weight).__name__} {name} {tokens}x{k}x{n} bias {biased}"
                    yield what, way, x, weight, residual, gain


def around(
    _: str, way: Way, x: torch.Tensor, weight: Plain | Fp8, residual: torch.Tensor, gain: torch.Tensor
) -> list[torch.Tensor]:
    """Alone, added to a residual, gated; the last one normed too where it can be."""
    start = Around(pdl=True)
    if way.rounds:
        rounded, scales = TritonKernels().quantize_rows(x)
        start, x = start._replace(scales=scales, dtype=x.dtype), rounded
    gated = start._replace(gated=True, gain=gain if norms(way, x) else None, eps=1e-5)
    added = start._replace(residual=residual.clone())
    return [way.product(x, weight, one) for one in (start, added, gated)]


def norms(way: Way, x: torch.Tensor) -> bool:
    return x.shape[0] <= 16 and not way.rounds


def check_product(*case: Any) -> None:
    """Twice, since counters must be left as they were found."""
    what, way, x, weight, residual, gain = case
    bias = None if weight.bias is None else weight.bias.float()
    dense, plain = weight.dequantized().float(), TorchKernels()
    if way.rounds:
        rounded, scales = TritonKernels().quantize_rows(x)
        x = rounded.float() * scales
    alone = torch.nn.functional.linear(x.float(), dense, bias)
    normed = plain.rms_norm(x.float(), gain.float(), 1e-5) if norms(way, x) else x.float()
    gated = plain.silu_mul(torch.nn.functional.linear(normed, dense, bias))
    right = [alone, alone + residual.float(), gated] * 2
    found = around(*case) + around(*case)
    hold(what, max(error_of(one, other) for one, other in zip(found, right, strict=True)), 1e-2)


def draws() -> None:
    source = random.Random(1)
    different = total = 0
    for vocab in (1000, 128256):
        for coarse in (False, True):
            rows, count = 64, 48
            first, second = (Tables(rows, 4, 32, torch.device(GPU)) for _ in range(2))
            for tables in (first, second):
                source.seed(7)
                for i in range(rows):
                    tables.temperature[i] = source.choice([0.0, 0.7, 1.0, 1.5])
                    tables.top_k[i] = source.choice([0, 0, 1, 5, 50, 2000])
                    tables.top_p[i] = source.choice([1.0, 1.0, 0.9, 0.3])
                    tables.min_p[i] = source.choice([0.0, 0.0, 0.05])
                    tables.seed_low[i] = source.getrandbits(31)
                    tables.seed_high[i] = source.getrandbits(31)
            logits = torch.randn(count, vocab, device=GPU) * 3
            logits = logits.to(torch.bfloat16).float() if coarse else logits
            logits[3, 17] = float("nan")
            chosen = torch.randperm(rows)[:count].to(torch.int32).to(GPU)
            at = torch.randint(1, 1000, (count,), dtype=torch.int32, device=GPU)
            found, right = (torch.empty(count, dtype=torch.int32, device=GPU) for _ in range(2))
            TritonDraw().draw(logits, first, chosen, at, found)
            TorchDraw().draw(logits, second, chosen, at, right)
            different += int((found != right).sum()) + int((first.token != second.token).sum())
            total += count
    # a draw at the border of two tokens may fall either way in float32
    hold(f"draws that differ, of {total}", different, 2)
