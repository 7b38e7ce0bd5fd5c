from __future__ import annotations

from pathlib import Path

import pytest

import redline
from redline.clock import now_ns
from redline.errors import StoreFault
from redline.observe.sample import Sample
from redline.spec.load import LoadPoint
from redline.store.store import Store
from redline.store.tail import Tail
from tests.report.stored import BOX, FAST, experiment, records_of, write_run


def test_requests_are_read_once_and_in_the_order_of_their_coming(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    write_run(db, [FAST], clients=(4,))
    with redline.Reader.open(db) as reader:
        point = reader.run().trials[0].points[0].id
        expected = reader.records(point)
    with Tail.open(db) as tail:
        after, found = tail.requests(point, most=10)
        assert tail.behind(point, after) == len(expected) - 10
        after, more = tail.requests(point, after, most=10**6)
        assert tail.requests(point, after) == (after, [])
        assert tail.behind(point, after) == 0
    assert sorted(found + more, key=lambda one: one.index) == expected


def test_a_file_that_grows(tmp_path: Path) -> None:
    db, spec = tmp_path / "r.db", experiment([FAST], clients=(4,))
    write_run(db, [FAST], clients=(4,))
    with redline.Reader.open(db) as reader:
        record = next(records_of(reader.requests(reader.run().trials[0].points[0].id)))
    with Store.open(db) as store, Tail.open(db) as tail:
        trial = store.begin_trial(store.begin_run(spec, BOX, []), model="m", spec=spec.engines[0], repeat=0)
        point = store.begin_point(trial, LoadPoint("closed", 4))
        assert tail.requests(point) == (0, [])
        store.add_request(point, record)
        now = now_ns()
        one = [Sample(now - 10, "a.b_s", 1.0, "s", {"x": "1"}), Sample(now - 5, "a.b_s", 2.0, "s", {"x": "1"})]
        store.add_samples(
            trial, [*one, Sample(now - 10**12, "old", 1.0, "", {}), Sample(now, "c", float("nan"), "", {})]
        )
        store.flush()
        assert len(tail.requests(point)[1]) == 1
        found = tail.newest(trial, now - 10**10)
    assert [(sample.name, sample.value, sample.labels) for sample in found] == [("a.b_s", 2.0, {"x": "1"})]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="no results file"):
        Tail.open(tmp_path / "none.db")
