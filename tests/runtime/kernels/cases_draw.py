"""Run by `test_against_torch.py` with TRITON_INTERPRET=1: what the device draws is what the sampler draws."""

from __future__ import annotations

import random

import pytest
import torch

from redline.runtime.batch import Batch
from redline.runtime.kernels.draw import Draw, TorchDraw
from redline.runtime.kernels.triton_decode import TritonDraw
from redline.runtime.request import Request, Sampling
from redline.runtime.sampler import Row, sample
from redline.runtime.state import Mirror, Sender, Tables

CPU = torch.device("cpu")
ROWS, VOCAB = 8, 2500


def tables_of(samplings: list[Sampling]) -> Tables:
    """Tables in which request i has row ROWS - 1 - i."""
    tables = Tables(ROWS, 8, 16, CPU)
    mirror = Mirror(tables)
    for i, sampling in enumerate(samplings):
        request = Request(str(i), [1], sampling, lambda _: None)
        request.row, request.pages = ROWS - 1 - i, [i + 1, 20 + i]
        mirror.occupy(request)
        mirror.place(request.row, 100 + i, 16 + i)
    Sender(CPU).apply(mirror.take(), tables)
    return tables


@pytest.mark.parametrize("draw", [TorchDraw(), TritonDraw()])
@pytest.mark.parametrize("coarse", [False, True])
def test_as_the_sampler(draw: Draw, coarse: bool) -> None:
    source = random.Random(5)
    for trial in range(1):
        logits = torch.randn(ROWS, VOCAB, generator=torch.Generator().manual_seed(trial)) * 2
        logits = (logits * 2).round() / 2 if coarse else logits  # many ties
        samplings = [
            Sampling(
                temperature=source.choice([0, 1e-6, 0.7, 1, 1.5]),
                top_k=source.choice([0, 0, 1, 5, 50, 5000]),
                top_p=source.choice([1, 1, 0.9, 0.3]),
                min_p=source.choice([0, 0, 0.1]),
                seed=source.getrandbits(64),
            )
            for _ in range(ROWS)
        ]
        tables = tables_of(samplings)
        place = source.randrange(1, 60)
        right = [one.token for one in sample(logits, [Row(sampling, [0] * place, 1) for sampling in samplings])]
        rows = torch.arange(ROWS - 1, -1, -1, dtype=torch.int32)
        out = torch.empty(ROWS, dtype=torch.int32)
        draw.draw(logits, tables, rows, torch.full((ROWS,), place, dtype=torch.int32), out)
        assert out.tolist() == right
        assert tables.token[:ROWS].tolist() == right[::-1]
        assert tables.position[:ROWS].tolist() == [place] * ROWS


@pytest.mark.parametrize("draw", [TorchDraw(), TritonDraw()])
def test_faults_and_padding(draw: Draw) -> None:
    tables = tables_of([Sampling(temperature=0), Sampling(temperature=1), Sampling(temperature=0)])
    logits = torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(1))
    logits[0, 3], logits[1, 4] = float("nan"), float("inf")
    rows = torch.tensor([7, 6, 5, ROWS], dtype=torch.int32)
    out = torch.empty(4, dtype=torch.int32)
    draw.draw(logits, tables, rows, torch.tensor([9, 9, 9, 9], dtype=torch.int32), out)
    assert out.tolist()[:3] == [-1, -1, int(logits[2].argmax())]
    assert tables.token[[7, 6, 5]].tolist() == [0, 0, int(logits[2].argmax())]
    assert (int(tables.token[ROWS]), int(tables.position[ROWS])) == (0, 0)


@pytest.mark.parametrize("draw", [TorchDraw(), TritonDraw()])
def test_inputs_of_a_step(draw: Draw) -> None:
    tables = tables_of([Sampling(), Sampling(), Sampling()])
    rows = torch.tensor([5, 7, ROWS], dtype=torch.int32)
    count, none = 3, torch.empty(0, dtype=torch.int64)
    batch = Batch(
        ids=torch.full((count,), -1, dtype=torch.int64),
        positions=torch.full((count,), -1, dtype=torch.int64),
        slots=torch.full((count,), -1, dtype=torch.int64),
        starts=none,
        seq_lens=torch.full((count,), -1, dtype=torch.int32),
        page_tables=torch.zeros(count, tables.pages_per_row, dtype=torch.int32),
        logits_at=none,
        max_query=1,
        max_seq=64,
    )
    draw.prepare(tables, rows, batch)
    assert batch.ids.tolist() == [102, 100, 0]
    assert batch.positions.tolist() == [18, 16, 0]
    assert batch.slots.tolist() == [22 * 16 + 2, 20 * 16, 0]
    assert batch.seq_lens.tolist() == [19, 17, 1]
    assert batch.page_tables[:, :2].tolist() == [[3, 22], [1, 20], [0, 0]]
