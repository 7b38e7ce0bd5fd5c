from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.load.record import Status
from redline.spec.load import LoadPoint
from redline.store.read import Reader, _resolve
from redline.store.store import Store
from tests.store.recorded import EXPERIMENT, record

IDS = ["20261124-090000-b01d", "20261123-185001-4f2a", "20261123-175001-4fff"]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("last", IDS[0]),
        ("last~1", IDS[1]),
        ("20261124", IDS[0]),
        ("20261123-18", IDS[1]),
        ("4f2a", IDS[1]),
        (IDS[2], IDS[2]),
    ],
)
def test_a_part_of_an_id_is_enough(which: str, expected: str) -> None:
    assert _resolve(which, IDS, Path("r.db")) == expected


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("20261123", ["2 runs fit", "4f2a", "4fff"]),
        ("20261123-185001-4f2b", ["no run", "did you mean '20261123-185001-4f2a'?"]),
        ("lsat", ["did you mean 'last'?"]),
        ("zzz", ["the newest is 20261124-090000-b01d", "redline runs"]),
        ("", ["3 runs fit"]),
        ("last~7", ["only 3 runs"]),
    ],
)
def test_a_wrong_id_is_explained(which: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        _resolve(which, IDS, Path("r.db"))
    for word in words:
        assert word in str(caught.value)


def test_an_empty_file_has_no_last_run(store: Store) -> None:
    assert store.runs() == []
    with pytest.raises(UsageError, match="no run is stored"):
        store.run("last")


def test_runs_come_newest_first_and_not_more_than_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = iter(["0001", "0002", "0003"])
    monkeypatch.setattr("redline.store.store.secrets.token_hex", lambda n: next(digits))
    for _ in range(3):
        store.begin_run(EXPERIMENT, {}, [])
    ids = [run.id for run in store.runs(2)]
    assert len(ids) == 2
    assert ids == sorted(ids, reverse=True)
    assert isinstance(store.runs(1)[0].as_dict()["trials"], tuple)


def test_a_load_point_without_requests(store: Store, point: int) -> None:
    columns = store.requests(point)
    assert len(columns) == 0
    assert columns.chunk_start.tolist() == [0]
    stored = store.run().trials[0].points[0]
    assert stored.measured_from_ns == stored.ended_ns == stored.started_ns


def test_a_cut_off_point_spans_its_measured_requests(store: Store, point: int) -> None:
    store.add_request(point, record(0, warmup=True))
    store.add_request(point, record(5))
    store.add_request(point, record(6, finished_ns=0))
    store.flush()
    stored = store.run().trials[0].points[0]
    assert not stored.complete
    assert stored.measured_from_ns == record(5).intended_ns
    assert stored.ended_ns == max(record(5).finished_ns, record(6).chunk_ns[-1])


def test_errors_are_counted_by_kind(store: Store, point: int) -> None:
    for index in range(3):
        store.add_request(point, record(index, status=Status.HTTP, http_status=503, error="overloaded"))
    store.add_request(point, record(3, status=Status.RESET, error="closed"))
    store.add_request(point, record(4))
    store.add_request(point, record(5, status=Status.CANCELLED))
    store.flush()
    assert store.errors(point) == [("http", 503, "overloaded", 3), ("reset", 0, "closed", 1)]


def test_reading_goes_on_while_somebody_writes(store: Store, point: int) -> None:
    with Reader.open(store.path) as reader:
        for batch in range(3):
            for index in range(10):
                store.add_request(point, record(batch * 10 + index))
            store.flush()
            assert len(reader.requests(point)) == (batch + 1) * 10


def test_a_skipped_engine_has_a_trial_and_no_points(store: Store, point: int) -> None:
    run = store.run()
    trial = store.begin_trial(run.id, model="m", spec=EXPERIMENT.engines[1], repeat=1)
    store.end_trial(trial, "skipped", "no GPU (a box with one)")
    stored = store.run().trials[1]
    assert (stored.engine, stored.repeat, stored.status, stored.points) == ("transformers", 1, "skipped", ())
    assert stored.error == "no GPU (a box with one)"
    assert stored.log is None
    store.begin_point(trial, LoadPoint("constant", 2.0))
    assert store.run().points == 2
