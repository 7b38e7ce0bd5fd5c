"""Causes planted beside redline's own engine, and what `redline explain` makes of the run. One engine, three points."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import redline
from redline.analyse.explain.score import attributable
from redline.engines.endpoint import Endpoint
from redline.errors import UsageError
from redline.report.explain.files import write_explained
from redline.report.explain.read import PointExplained
from redline.report.explain.request import explain_request, request_dict
from redline.report.explain.text import as_dict, markdown
from redline.spec.load import LoadPoint
from redline.spec.overrides import experiment_from
from redline.testing.plants import Hogged, Plant, Stopped, calmed
from redline.tune.events import Events

pytestmark = pytest.mark.timeout(420)  # three runs of a minute at most

CORE = min(os.sched_getaffinity(0))
SECONDS = 20.0
"""A lag of some buckets between a cause and what is lost makes as many shifts overlap better than none."""


class Planting(Events):
    """Stops the engine's process now and then at the first load point, and hogs its core at the second."""

    def __init__(self) -> None:
        super().__init__()
        self.plants: dict[float, Plant] = {}
        self.pids: tuple[int, ...] = ()
        self.give_back: Callable[[], None] = lambda: None

    def ready(self, endpoint: Endpoint) -> None:
        self.pids = tuple(endpoint.pids)
        self.give_back = calmed(self.pids)  # other programs of the box are no part of the test

    def point(self, point: LoadPoint) -> None:
        self.end()
        first = point.value == 3
        plant: Plant = Stopped(self.pids, lasts_s=0.4) if first else Hogged(self.pids, CORE, 6, lasts_s=0.8)
        self.plants[point.value] = plant.__enter__()

    def end(self) -> None:
        for plant in self.plants.values():
            plant.stop()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planting]:
    """Once more where the box lost more time by itself than what was planted: then there is little to be found."""
    for attempt in range(3):
        found = plant(tmp_path_factory.mktemp("explain") / "r.db")
        if attempt == 2 or explained(found, 3)[1] > 0.5:
            break
    return found


def plant(db: Path) -> tuple[Path, Planting]:
    experiment = experiment_from(
        None,
        {
            "model": ["bundled:tiny"], "engines": ["redline"], "concurrency": "3,4", "duration": SECONDS,
            "prompt_tokens": 24, "output_tokens": 64, "calibrate": 0.0, "warmup": "fixed", "explain": True,
            "spans": True,
        },
    )  # fmt: skip
    events = Planting()
    try:
        outcome = redline.compare(experiment, db=db, events=events)
    finally:
        events.end()
        events.give_back()
    assert outcome.status == "done", outcome.errors
    return db, events


def explained(planted: tuple[Path, Planting], clients: int) -> tuple[PointExplained, float]:
    """The explanation, and the share of lost time that the plant is the cause of."""
    db, events = planted
    (point,) = redline.explain(db=db, point=str(clients)).points
    found = point.explanation
    began, ended = (np.array(part, np.int64) for part in zip(*events.plants[clients].windows, strict=True))
    truth = attributable(found.lost, np.minimum(found.grid.paint(began, ended), 1.0))
    return point, truth / float(found.lost.sum())


def test_a_stopped_engine_is_the_top_cause_with_its_share(planted: tuple[Path, Planting]) -> None:
    point, truth = explained(planted, 3)
    parts = {one.cause.key: one for one in point.explanation.blamed}
    assert "stopped" in parts, as_dict(redline.explain(db=planted[0]))["points"][0]["causes"]
    # on a box of its own it is within some hundredths; of a busy one's losses neighbours have their share
    assert 0.5 * truth < parts["stopped"].explains < truth + 0.15
    if truth > 0.5:  # else the box is so busy that a neighbour may rightly be the top cause
        assert point.explanation.blamed[0].cause.key == "stopped"
    if point.trial.telemetry["kernel"]["counts"].get("signal"):
        assert dict(parts["stopped"].who) == {"redline itself": 1.0}
    assert any(stall.joint for stall in point.explanation.stalls)


def test_a_hog_on_the_engines_core_is_blamed_on_the_cpu(planted: tuple[Path, Planting]) -> None:
    point, truth = explained(planted, 4)
    mine = sum(one.explains for one in point.explanation.blamed if one.cause.family == "cpu")
    assert mine >= truth - 0.2, as_dict(redline.explain(db=planted[0]))["points"][1]["causes"]
    assert not any(one.cause.family in ("stopped", "memory", "network") for one in point.explanation.blamed)


def test_spans_are_linked_to_our_requests(planted: tuple[Path, Planting]) -> None:
    point, _ = explained(planted, 3)
    shares = point.explanation.shares
    assert (shares.basis == 0).mean() > 0.9  # the last ones may come after the end
    assert sum(shares.of(np.ones(len(shares.index), np.bool_)).values()) == pytest.approx(1)
    index = int(shares.index[len(shares.index) // 2])
    told = explain_request("last", index, point="3", db=planted[0])
    names = [span.name for span in told.spans]
    assert names[0] == "llm_request"
    assert set(names) == {"llm_request", "queue", "prefill", "decode"}
    whole = told.spans[0]
    # a standstill may have begun before the request was due, and so comes first
    (sent,) = [step.began_ns for step in told.steps if step.what == "until the first token"]
    assert told.due_ns <= sent
    assert told.due_ns <= whole.began_ns <= whole.ended_ns <= told.due_ns + told.total_ms * 1e6 + 50e6
    assert request_dict(told)["request"] == index


def test_it_is_written_as_files(planted: tuple[Path, Planting], tmp_path: Path) -> None:
    found = redline.explain(db=planted[0])
    names = {path.name for path in write_explained(found, tmp_path / "out")}
    assert {"explain.html", "explain.md"} <= names
    assert "unexplained" in markdown(found)
    assert "<script" not in (tmp_path / "out/explain.html").read_text()


def test_the_report_says_who_is_to_blame(planted: tuple[Path, Planting]) -> None:
    with redline.Reader.open(planted[0]) as reader:
        (section,) = [one for one in redline.load_report(reader).sections if one.key == "explain"]
    assert [row[1] for row in section.rows] == ["3 clients", "4 clients"]
    assert "engine stopped or frozen" in section.rows[0][3]


def test_what_is_not_there_is_told_with_what_is(planted: tuple[Path, Planting]) -> None:
    db, _ = planted
    for asked, said in (({"point": "99"}, "one of: 3 clients, 4 clients"), ({"engine": "vlm"}, "has no engine")):
        with pytest.raises(UsageError, match=said):
            redline.explain(db=db, **asked)
    with pytest.raises(UsageError, match="has no request 99999"):
        explain_request("last", 99_999, db=db)
    with pytest.raises(UsageError, match="several load points"):
        explain_request("last", 20, db=db)
