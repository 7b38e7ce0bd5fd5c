"""Coordinated omission: a client's own waiting is in the latencies, whatever hides it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest

from redline.errors import SpecError
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, Tick
from redline.load.paced.server import PacedServer
from redline.load.phase import PhaseRun
from redline.load.record import RequestRecord, Status
from redline.load.share import split
from redline.load.timer import Agenda
from redline.spec.load import LoadPoint
from redline.spec.overrides import experiment_from
from tests.load.servers import Result, fast, push


def ttft_ms(records: Sequence[RequestRecord], start: str, level: float) -> float:
    times = [(record.chunk_ns[0] - getattr(record, start)) / 1e6 for record in records if record.status is Status.OK]
    return float(np.percentile(times, level))


def most_in_flight(result: Result) -> int:
    steps = [(r.sent_ns, 1) for r in result.measured] + [(r.finished_ns, -1) for r in result.measured]
    running = most = 0
    for _, step in sorted(steps):
        running += step
        most = max(most, running)
    return most


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cap_moves_the_waiting_into_the_client_and_it_is_measured_all_the_same(workers: int) -> None:
    """40 requests/s, 4 in flight, 150 ms each: a third more than the cap lets through. From the send TTFT is flat."""
    with PacedServer(fast(ttft_ms=80.0, itl_ms=10.0)) as server:
        point = LoadPoint("constant", 40)
        free = push(server, point, duration_s=2.0, workers=workers)
        held = push(server, point, duration_s=2.0, drain_s=4.0, max_in_flight=4, workers=workers)
    assert free.outcome.held_back == 0
    assert most_in_flight(free) > 5
    assert most_in_flight(held) <= 4
    assert held.outcome.max_in_flight == 4
    assert held.outcome.held_back > 10
    usual = ttft_ms(held.measured, "sent_ns", 50)
    assert usual < 1.5 * ttft_ms(free.measured, "sent_ns", 50), "the server is as fast as ever"
    assert ttft_ms(held.measured, "intended_ns", 99) > 3 * usual, "and its users wait"
    assert held.outcome.sent < held.outcome.planned, "those that never left are told"


def test_a_cap_that_is_not_reached_changes_nothing() -> None:
    with PacedServer(fast()) as server:
        result = push(server, LoadPoint("constant", 30), duration_s=1.0, max_in_flight=200)
    assert (result.outcome.held_back, result.outcome.sent) == (0, result.outcome.planned)


class Failing:
    """A sender whose requests all fail inside of their own send."""

    def __init__(self) -> None:
        self.bodies = deque(Outgoing(i, b"") for i in range(5_000))
        self.active, self.tick, self.agenda = 0, Tick(), Agenda()
        self.sent = 0
        self.run: PhaseRun | None = None

    def begin(self, client: int, intended_ns: int) -> None:
        self.bodies.popleft()
        self.sent += 1
        assert self.run is not None
        self.run.ended(client, End.CONNECT, False, 1, 1)

    def cut(self) -> None: ...

    def phase_over(self, done: PhaseDone) -> None: ...


class Silent(Failing):
    """One whose requests are under way until they are told to have ended."""

    def __init__(self, bodies: int) -> None:
        super().__init__()
        self.bodies = deque(Outgoing(i, b"") for i in range(bodies))
        self.done: list[PhaseDone] = []

    def begin(self, client: int, intended_ns: int) -> None:
        self.bodies.popleft()
        self.active += 1

    def phase_over(self, done: PhaseDone) -> None:
        self.done.append(done)


def test_requests_held_back_while_connections_fail_do_not_nest() -> None:
    sender = Failing()
    phase = Phase(Arrivals.OPEN, offsets_ns=[1] * 5_000, max_in_flight=1, start_ns=1, ends_fast=False)
    sender.run = PhaseRun(phase, sender)
    sender.active = 1  # somebody is in flight: all are held back
    sender.run.start()
    sender.agenda.run_due()
    assert (sender.tick.held_back, sender.sent) == (5_000, 0)
    sender.active = 0
    sender.run.ended(-1, End.COMPLETE, True, 1, 1)
    assert sender.sent == 5_000
    sender.agenda.timer.close()


@pytest.mark.parametrize("bodies", [1, 3])
def test_time_that_is_up_with_requests_held_back_or_unmade_is_what_ended_the_phase(bodies: int) -> None:
    """All three are due, one leaves; the others wait for it, or for their bodies."""
    sender = Silent(bodies)
    most = 1 if bodies == 3 else 0
    phase = Phase(
        Arrivals.OPEN, offsets_ns=[1] * 3, requests=3, duration_ns=2, drain_ns=10**18, max_in_flight=most, start_ns=1
    )
    sender.run = PhaseRun(phase, sender)
    sender.run.start()
    sender.agenda.run_due()
    sender.active = 0
    sender.run.ended(-1, End.COMPLETE, True, 1, 1)
    sender.run.check()
    sender.agenda.timer.close()
    assert [(done.sent, done.stopped_by) for done in sender.done] == [(1, "duration")]


def test_the_cap_is_dealt_round() -> None:
    phase = Phase(Arrivals.OPEN, offsets_ns=list(range(100)), max_in_flight=5)
    assert [part.max_in_flight for part in split(phase, 3)] == [2, 2, 1]
    assert len(split(Phase(Arrivals.OPEN, offsets_ns=list(range(100)), max_in_flight=2), 3)) == 2
    assert [part.max_in_flight for part in split(Phase(Arrivals.OPEN, offsets_ns=[1, 2, 3]), 3)] == [0, 0, 0]


def test_only_an_open_loop_has_a_cap() -> None:
    base = {"model": ["x"], "engines": "vllm", "max_in_flight": 4}
    with pytest.raises(SpecError, match="max_in_flight caps an open loop"):
        experiment_from(None, base)
    for more in ({"rate": [3.0]}, {"search": "knee", "search_over": "rate"}):
        assert experiment_from(None, base | more).load.max_in_flight == 4
    with pytest.raises(SpecError, match="turns of a conversation"):
        experiment_from(None, base | {"rate": [3.0], "turns": 3, "api": "chat"})
