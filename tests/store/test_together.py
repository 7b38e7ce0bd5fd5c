from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from redline.load.record import RequestRecord, Status
from redline.store import columns, together
from redline.store.read import Reader
from redline.store.requests import Requests
from redline.store.store import Store
from tests.store.recorded import record


def recorded() -> list[RequestRecord]:
    """Of several kinds, lengths and layouts, some with the same index, as warm-up requests and canaries may have."""
    rng = np.random.default_rng(0)
    made = []
    for place in range(60):
        chunks = int(rng.integers(0, 9))
        tokens = rng.integers(0, 200 if place > 40 else 4, chunks).tolist()
        one = record(place // 2 if place < 20 else place, chunks, chunk_tokens=tokens, warmup=place < 5)
        if place % 7 == 0:
            one.status, one.error = (Status.RESET, "reset") if place > 30 else (Status.TIMEOUT, "late")
        if place % 11 == 0 and chunks > 1:
            one.chunk_ns[1:] = [at + 6_000_000_000 for at in one.chunk_ns[1:]]
        made.append(one)
    return [made[place] for place in rng.permutation(len(made))]  # in the order in which they ended


@pytest.fixture
def file(store: Store, point: int) -> Path:
    for one in recorded():
        store.add_request(point, one)
    store.flush()
    store.end_point(
        point, measured_from_ns=1, ended_ns=2, stopped_by="duration", outcome={}, verdict="valid", reasons=[]
    )
    return store.path


def same(one: Requests, other: Requests) -> None:
    for field in fields(Requests):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), field.name)


@pytest.mark.parametrize("cores", [2, 7])
def test_several_processes_read_what_one_reads(
    file: Path, point: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader.open(file) as reader:
        alone = reader.requests(point)
        monkeypatch.setattr(together, "FEWEST", 1)
        monkeypatch.setattr(together, "EACH", 1)
        monkeypatch.setattr(together, "_cores", lambda: cores)
        monkeypatch.setattr(together, "read_parts", None)  # no way back
        same(reader.requests(point), alone)
    assert len(alone) == 60


@pytest.mark.parametrize("sample", [1, 7, 2000])
def test_what_is_taken_for_usual_changes_nothing(
    file: Path, point: int, sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_SAMPLE", sample)
    with Reader.open(file) as reader:
        read, records = reader.requests(point), reader.records(point)
    for name in (*columns.NUMBERS, *columns._KIND):
        assert getattr(read, name).tolist() == [getattr(one, name) for one in records], name
    assert read.chunk_ns.tolist() == [at for one in records for at in one.chunk_ns]
    assert read.chunk_tokens.tolist() == [tokens for one in records for tokens in one.chunk_tokens]


def test_a_process_that_fails_costs_no_more_than_time(file: Path, point: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Reader.open(file) as reader:
        alone = reader.requests(point)
        monkeypatch.setattr(together, "FEWEST", 1)
        monkeypatch.setattr(together, "EACH", 1)
        monkeypatch.setattr(together, "_cores", lambda: 2)
        monkeypatch.setattr("sys.executable", "/bin/false")
        same(reader.requests(point), alone)


def test_a_point_that_goes_on_is_read_at_one_instant(store: Store, point: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in recorded():
        store.add_request(point, one)
    store.flush()
    monkeypatch.setattr(together, "FEWEST", 1)
    monkeypatch.setattr(together, "EACH", 1)
    monkeypatch.setattr(together, "_read_together", None)
    assert len(store.requests(point)) == 60
