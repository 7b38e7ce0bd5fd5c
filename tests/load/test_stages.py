"""Load that changes while it is measured, against the paced server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from redline.analyse.stages import by_stage
from redline.load.arrivals import stage_schedule
from redline.load.paced.server import PacedServer
from redline.load.record import RequestRecord
from redline.spec.load import LoadPoint
from redline.spec.stages import StageSpec
from tests.load.columns import columns
from tests.load.servers import fast, push

S = 1_000_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[PacedServer]:
    with PacedServer(fast()) as made:
        yield made


def stages(*values: dict[str, Any]) -> list[StageSpec]:
    return [StageSpec(**value) for value in values]


def busy(records: list[RequestRecord], begin: int, end: int) -> float:
    """Requests in flight, averaged over [begin, end)."""
    return sum(max(0, min(r.finished_ns, end) - max(r.intended_ns, begin)) for r in records) / (end - begin)


def test_a_ramp_of_rates_is_sent_as_planned(server: PacedServer) -> None:
    plan = stages({"rate": 10, "to": 60, "duration_s": 1}, {"rate": 20, "duration_s": 0.5, "arrivals": "constant"})
    result = push(server, LoadPoint("stages", 30), stages=plan, seed=4)
    offsets = stage_schedule(plan, seed=4)
    by_index = sorted(result.measured, key=lambda record: record.index)
    assert [record.intended_ns - result.outcome.measured_from_ns for record in by_index] == offsets
    assert result.outcome.planned == result.outcome.sent == len(offsets)
    assert result.outcome.stopped_by == "duration"
    assert [stage["until_s"] for stage in result.outcome.traffic["stages"]] == [1, 1.5]


def test_clients_come_and_go(server: PacedServer) -> None:
    plan = stages(
        {"concurrency": 2, "duration_s": 0.6}, {"concurrency": 2, "to": 10, "duration_s": 0.8},
        {"concurrency": 3, "duration_s": 0.6},
    )  # fmt: skip
    result = push(server, LoadPoint("stages-closed", 10), stages=plan)
    begin = result.outcome.measured_from_ns
    levels = [busy(result.measured, begin + int(a * S), begin + int(b * S)) for a, b in ((0.1, 0.6), (0.6, 1.4))]
    assert levels[0] == pytest.approx(2, abs=0.3)
    assert levels[1] == pytest.approx(6, abs=1.2)
    tail = busy(result.measured, begin + int(1.5 * S), begin + int(2.0 * S))
    assert tail == pytest.approx(3, abs=0.4)  # seven clients have left
    assert result.outcome.stopped_by == "duration"
    at_once = Counter(record.intended_ns for record in result.measured)
    assert at_once[begin] == 2


def test_stage_numbers_follow_from_the_intended_time(server: PacedServer) -> None:
    plan = stages({"rate": 40, "duration_s": 0.5, "arrivals": "constant"}, {"rate": 10, "duration_s": 1})
    result = push(server, LoadPoint("stages", 20), stages=plan)
    outcome = result.outcome
    slow, fast_ = by_stage(
        columns(result.records), outcome.traffic["stages"], outcome.measured_from_ns, outcome.ended_ns,
        {"ttft_ms": 10_000},
    )  # fmt: skip
    assert (slow.sent, slow.had, slow.asked) == (20, 40, 40)
    assert slow.sent + fast_.sent == outcome.sent
    assert slow.goodput_per_s == slow.sent / 0.5
    assert fast_.ttft_ms_p50 >= 5


def test_clients_that_come_and_go_are_dealt_to_several_workers(server: PacedServer) -> None:
    plan = stages({"concurrency": 2, "duration_s": 0.6}, {"concurrency": 7, "duration_s": 0.8})
    result = push(server, LoadPoint("stages-closed", 7), stages=plan, workers=2)
    begin = result.outcome.measured_from_ns
    assert busy(result.measured, begin + int(0.1 * S), begin + int(0.6 * S)) == pytest.approx(2, abs=0.4)
    assert busy(result.measured, begin + int(0.8 * S), begin + int(1.4 * S)) == pytest.approx(7, abs=1.0)
