"""The directed phase by itself: what is told when, and what goes out."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from redline.clock import now_ns
from redline.load.crew import LoadWorker
from redline.load.directed import DirectedRun
from redline.load.frames import Arrivals, Outgoing, Phase, PhaseDone, Tick
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.target import resolve
from tests.load.test_crew import hear_until_done, requests

MS = 1_000_000


class Agenda:
    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[Any], None], Any]] = []

    def at(self, _: int, call: Callable[[Any], None], value: Any) -> None:
        self.calls.append((call, value))


class Loop:
    """What a directed phase sees of the loop."""

    def __init__(self) -> None:
        self.bodies: deque[Outgoing] = deque()
        self.active = 0
        self.tick = Tick()
        self.agenda: Any = Agenda()
        self.begun: list[tuple[int, int]] = []

    def begin(self, client: int, intended_ns: int) -> None:
        self.begun.append((intended_ns, self.bodies.popleft().number))
        self.active += 1

    def cut(self) -> None: ...

    def phase_over(self, done: PhaseDone) -> None: ...


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 9))
def test_what_is_due_goes_out_in_the_order_of_when_it_was(due: list[int], seed: int) -> None:
    """Whatever the order of the telling, and with the intended start that each was given."""
    bodies = [Outgoing(i, b"", at) for i, at in enumerate(due)]
    random.Random(seed).shuffle(bodies)
    loop = Loop()
    run = DirectedRun(Phase(Arrivals.DIRECTED), loop)
    loop.bodies.extend(bodies)
    run.start()
    for call, value in list(loop.agenda.calls):
        call(value)
    assert loop.begun == sorted((body.due_ns, body.number) for body in bodies)
    assert not loop.bodies


def test_bodies_go_out_when_they_are_due_and_late_ones_keep_their_due_time() -> None:
    with PacedServer(Pace(ttft_ms=3, itl_ms=1)) as server, LoadWorker(resolve(server.base_url)) as worker:
        while not worker.ready:
            worker.hear(0.1)
        start = now_ns()
        offsets = [120, -40, 60, 0]
        bodies = [body._replace(due_ns=start + at * MS) for body, at in zip(requests(server, 4), offsets, strict=True)]
        worker.feed(bodies[:3])
        worker.start(Phase(Arrivals.DIRECTED, start_ns=start, duration_ns=1_000 * MS, drain_ns=2_000 * MS))
        worker.feed(bodies[3:])
        streams, _, done = hear_until_done(worker)
    assert (done.stopped_by, done.sent, done.started_ns) == ("duration", 4, start)
    heads = {raw.head.number: raw.head for raw in streams}
    assert [heads[i].intended_ns - start for i in range(4)] == [at * MS for at in offsets]
    assert all(head.sent_ns >= head.intended_ns for head in heads.values())
    assert heads[1].sent_ns - heads[1].intended_ns >= 40 * MS  # it was told too late, and that shows


def test_a_cancel_with_nothing_in_flight_ends_the_phase() -> None:
    with PacedServer(Pace(ttft_ms=3, itl_ms=1)) as server, LoadWorker(resolve(server.base_url)) as worker:
        worker.feed(body._replace(due_ns=1) for body in requests(server, 2))
        worker.start(Phase(Arrivals.DIRECTED))
        ended = 0
        while ended < 2:
            ended += sum(type(heard).__name__ == "RawStream" for heard in worker.hear(0.2))
        worker.cancel()
        _, _, done = hear_until_done(worker)
    assert (done.stopped_by, done.sent) == ("cancelled", 2)
