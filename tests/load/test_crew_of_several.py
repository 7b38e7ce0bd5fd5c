"""Several workers behave as one: nothing lost, one start, one end, deaths named."""

from __future__ import annotations

import pytest

from redline.errors import EnvironmentFault
from redline.load.arrivals import schedule
from redline.load.crew import Crew
from redline.load.frames import Arrivals, Phase, PhaseDone, RawStream
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.record import Status
from redline.load.target import resolve
from redline.spec.load import LoadPoint
from tests.load.servers import closed, fast, push
from tests.load.test_crew import hear_until_done, requests


def test_a_closed_loop_over_three_workers() -> None:
    with PacedServer(Pace(ttft_ms=5, itl_ms=2)) as server, Crew(resolve(server.base_url), 3) as crew:
        crew.feed(requests(server, 20))
        crew.start(Phase(Arrivals.CLOSED, clients=8, requests=40, preconnect=True))
        crew.feed(requests(server, 40)[20:])
        streams, _, done = hear_until_done(crew)  # type: ignore[arg-type]
        assert crew.ready
        assert crew.open_files > 0
        assert len(set(crew.filenos())) == 3
    assert sorted(raw.head.number for raw in streams) == list(range(40))
    assert (done.stopped_by, done.sent, done.tick.ended, done.tick.good) == ("requests", 40, 40, 40)
    first = sorted(raw.head.intended_ns for raw in streams)[:8]
    assert set(first) == {done.started_ns}  # all clients of all workers began at one instant
    assert all(raw.head.connect_ns > 0 for raw in streams if raw.head.intended_ns == done.started_ns)


def test_phases_follow_one_another_on_several_workers() -> None:
    with PacedServer(Pace(ttft_ms=3, itl_ms=1)) as server, Crew(resolve(server.base_url), 2) as crew:
        crew.feed(requests(server, 4))
        crew.start(Phase(Arrivals.CLOSED, clients=1, requests=4))  # one client: one worker has nothing to do
        assert len(hear_until_done(crew)[0]) == 4  # type: ignore[arg-type]
        crew.feed(requests(server, 3))
        crew.start(Phase(Arrivals.OPEN, offsets_ns=[0, 5_000_000, 10_000_000]))
        streams, _, done = hear_until_done(crew)  # type: ignore[arg-type]
    by_number = sorted(streams, key=lambda raw: raw.head.number)
    assert [raw.head.intended_ns - done.started_ns for raw in by_number] == [0, 5_000_000, 10_000_000]


def test_the_death_of_one_is_named() -> None:
    with PacedServer(Pace(ttft_ms=50, itl_ms=50)) as server, Crew(resolve(server.base_url), 2) as crew:
        crew.feed(requests(server, 50))
        crew.start(Phase(Arrivals.CLOSED, clients=4, requests=50))
        crew.hear(1.0)
        process = crew.workers[1].process
        assert process is not None
        process.kill()
        with pytest.raises(EnvironmentFault, match=r"load worker 2 of 2 ended unexpectedly \(signal 9\)"):
            hear_until_done(crew)  # type: ignore[arg-type]


def test_cancelling_ends_all_of_them() -> None:
    with PacedServer(Pace(ttft_ms=500, itl_ms=500)) as server, Crew(resolve(server.base_url), 2) as crew:
        crew.feed(requests(server, 6))
        crew.start(Phase(Arrivals.CLOSED, clients=6))
        heard = []
        while sum(worker.ready for worker in crew.workers) < 2:
            heard += crew.hear(0.2)
        while not any(getattr(item, "in_flight", 0) == 6 for item in heard):
            heard += crew.hear(0.2)
        crew.cancel()
        while not any(isinstance(item, PhaseDone) for item in heard):
            heard += crew.hear(0.2)
    [done] = [item for item in heard if isinstance(item, PhaseDone)]
    assert (done.stopped_by, done.sent) == ("cancelled", 6)
    assert sum(isinstance(item, RawStream) for item in heard) == 6


def test_a_point_over_two_workers_is_a_point() -> None:
    with PacedServer(fast()) as server:
        one, two = (push(server, closed(6), requests=60, workers=count) for count in (1, 2))
    assert (one.outcome.workers, two.outcome.workers) == (1, 2)
    for result in (one, two):
        assert sorted(record.index for record in result.measured) == list(range(2, 62))
        assert result.count(Status.OK) == 60
        assert (result.outcome.stopped_by, result.outcome.sent, result.outcome.starved) == ("requests", 60, 0)
        assert 0 < result.outcome.worker_cpu_s_max <= result.outcome.client_cpu_s
    assert two.outcome.worker_cpu_s_max < two.outcome.client_cpu_s
    assert two.outcome.pinning.startswith("workers are not pinned: the server's processes are not known")


def test_a_schedule_is_kept_over_two_workers() -> None:
    point = LoadPoint("poisson", 60)
    with PacedServer(fast()) as server:
        result = push(server, point, duration_s=1.0, seed=5, workers=2)
    by_index = sorted(result.measured, key=lambda record: record.index)
    offsets = schedule(point, seed=5, duration_s=1.0)
    assert [record.intended_ns - result.outcome.measured_from_ns for record in by_index] == offsets


def test_giving_up_is_judged_over_all() -> None:
    with PacedServer(fast(faults={"http-500": 1})) as broken:
        result = push(broken, closed(4), duration_s=60, workers=2)
    assert result.outcome.stopped_by == "failing"
    assert 50 <= sum(record.failed for record in result.measured) < 120
    with PacedServer(fast(die_after=10)) as mortal:
        result = push(mortal, closed(4), duration_s=30, workers=2)
    assert result.outcome.stopped_by == "engine-died"
