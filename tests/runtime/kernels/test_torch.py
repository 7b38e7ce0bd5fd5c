"""The torch kernels against their definitions in float64, one number at a time where that is clearer."""

from __future__ import annotations

import math
import random

import pytest
import torch

from redline.runtime.batch import Batch
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.rope import Rope, cos_sin

HEADS, KV_HEADS, DIM, PAGE = 6, 2, 16, 4
SEQUENCES = [(1, 13), (1, 1), (1, 40), (5, 5), (7, 30), (40, 41)]
"""(tokens of this step, context); decodes first."""


def batch_of(sequences: list[tuple[int, int]], *, adjacent: bool, on_host: bool) -> Batch:
    free = list(range(1, 200))
    if not adjacent:
        random.Random(0).shuffle(free)
    counts = [-(-context // PAGE) for _, context in sequences]
    tables = [[free.pop(0) for _ in range(count)] for count in counts]
    starts, positions, slots = [0], [], []
    for (n, context), table in zip(sequences, tables, strict=True):
        starts.append(starts[-1] + n)
        for p in range(context - n, context):
            positions.append(p)
            slots.append(table[p // PAGE] * PAGE + p % PAGE)
    lengths = [context for _, context in sequences]
    padded = [table + [0] * (max(counts) - len(table)) for table in tables]
    return Batch(
        ids=torch.zeros(starts[-1], dtype=torch.int64),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        starts=torch.tensor(starts, dtype=torch.int32),
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        page_tables=torch.tensor(padded, dtype=torch.int32),
        logits_at=torch.arange(starts[-1]),
        max_query=max(n for n, _ in sequences),
        max_seq=max(lengths),
        host_starts=starts if on_host else None,
        host_seq_lens=lengths if on_host else None,
    )


def wanted_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, batch: Batch, scale: float, window: int | None
) -> torch.Tensor:
    out = torch.zeros(q.shape, dtype=torch.float64)
    k, v = keys.view(-1, KV_HEADS, DIM).double(), values.view(-1, KV_HEADS, DIM).double()
    for row, context in enumerate(batch.seq_lens.tolist()):
        first, last = batch.starts[row : row + 2].tolist()
        table = batch.page_tables[row].tolist()
        for token in range(first, last):
            at = context - (last - token)
            seen = range(0 if window is None else max(0, at - window + 1), at + 1)
            slots = [table[p // PAGE] * PAGE + p % PAGE for p in seen]
            for head in range(HEADS):
                scores = (k[slots, head // (HEADS // KV_HEADS)] @ q[token, head].double()) * scale
                out[token, head] = scores.softmax(0) @ v[slots, head // (HEADS // KV_HEADS)]
    return out.view(q.shape[0], -1)


@pytest.mark.parametrize("window", [None, 1, 6, 100])
@pytest.mark.parametrize("adjacent", [True, False])
def test_attention_against_its_definition(window: int | None, adjacent: bool) -> None:
    torch.manual_seed(0)
    batch = batch_of(SEQUENCES, adjacent=adjacent, on_host=adjacent)
    q = torch.randn(len(batch.ids), HEADS, DIM)
    keys, values = torch.randn(2, 200, PAGE, KV_HEADS, DIM)
    found = TorchKernels().attention(q, (keys, values), batch, 0.3, window)
    assert torch.allclose(found.double(), wanted_attention(q, keys, values, batch, 0.3, window), atol=1e-5)


def test_attention_reads_nothing_beyond_the_context() -> None:
    """What another request left behind the last token, be it NaN, has no effect."""
    torch.manual_seed(0)
    batch = batch_of([(1, 6), (3, 5)], adjacent=False, on_host=True)
    keys, values = torch.full((2, 200, PAGE, KV_HEADS, DIM), float("nan"))
    for row, context in enumerate((6, 5)):
        for p in range(context):
            page = int(batch.page_tables[row, p // PAGE])
            keys[page, p % PAGE] = values[page, p % PAGE] = 1.0
    found = TorchKernels().attention(torch.randn(4, HEADS, DIM), (keys, values), batch, 0.3, None)
    assert torch.allclose(found, torch.ones(4, HEADS * DIM))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("sequences", [[(1, 9)], SEQUENCES])
def test_rope_append_against_its_definition(fused: bool, sequences: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    batch = batch_of(sequences, adjacent=False, on_host=True)
    tokens = len(batch.ids)
    rows = torch.randn(tokens, HEADS + 2 * KV_HEADS, DIM)
    parts = rows.split_with_sizes((HEADS, KV_HEADS, KV_HEADS), 1)
    q, k, v = parts if fused else (part.clone() for part in parts)
    keys, values = torch.zeros(2, 200, PAGE, KV_HEADS, DIM)
    found = TorchKernels().rope_append(q, k, v, cos_sin(Rope(100.0), DIM, 64), batch, (keys, values))
    for token, position in enumerate(batch.positions.tolist()):
        slot = int(batch.slots[token])
        stored = keys.view(-1, KV_HEADS, DIM)[slot]
        for i in range(DIM // 2):
            angle = position * 100.0 ** (-2 * i / DIM)
            for heads, before, after in ((HEADS, q[token], found[token]), (KV_HEADS, k[token], stored)):
                for head in range(heads):
                    a, b = before[head, i].item(), before[head, i + DIM // 2].item()
                    turned = a * math.cos(angle) - b * math.sin(angle), b * math.cos(angle) + a * math.sin(angle)
                    assert after[head, [i, i + DIM // 2]].tolist() == pytest.approx(turned, abs=1e-4)
        assert torch.equal(values.view(-1, KV_HEADS, DIM)[slot], v[token])


@pytest.mark.parametrize("rows", [1, 3])
def test_norms_against_their_definition(rows: int) -> None:
    torch.manual_seed(0)
    x, residual, weight = torch.randn(rows, 24), torch.randn(rows, 24), torch.randn(24)
    total = (x + residual).double()
    wanted = total * (total.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight
    kernels = TorchKernels()
    assert torch.allclose(kernels.rms_norm(x + residual, weight, 1e-5).double(), wanted, atol=1e-5)
    normed, after = kernels.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.allclose(normed.double(), wanted, atol=1e-5)
    assert torch.allclose(after.double(), total, atol=1e-6)


def test_silu_mul_against_its_definition() -> None:
    x = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    gate, up = x[:, :5].double(), x[:, 5:].double()
    assert torch.allclose(TorchKernels().silu_mul(x).double(), gate / (1 + (-gate).exp()) * up, atol=1e-6)
