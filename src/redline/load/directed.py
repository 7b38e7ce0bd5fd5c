"""A phase in which the parent says when each request is due: sessions, whose next turn follows from an answer."""

from __future__ import annotations

import heapq

from redline.clock import now_ns
from redline.load.frames import Arrivals, Outgoing, Phase
from redline.load.phase import PhaseRun, Sender


class DirectedRun(PhaseRun):
    """Bodies go out at their own `due_ns`, in the order of those. One that comes too late goes at once, and its
    intended start stays what it was: the delay is the parent's, and shows as send lag.

    The phase is over when its time is, or when the parent cancels it.
    """

    def __init__(self, phase: Phase, loop: Sender) -> None:
        super().__init__(phase, loop)
        self._left = phase.requests or (1 << 62)
        self._due: list[tuple[int, int, Outgoing]] = []

    def start(self) -> None:
        if self.phase.duration_ns:
            self.loop.agenda.at(self.started_ns + self.phase.duration_ns, self._time_up, None)
        self.bodies_came()

    def bodies_came(self) -> None:
        bodies = self.loop.bodies
        while bodies:
            body = bodies.popleft()
            heapq.heappush(self._due, (body.due_ns, body.number, body))
        if self._due:
            self.loop.agenda.at(self._due[0][0], self._send_due, None)

    def _send_due(self, _: None) -> None:
        due = self._due
        now = now_ns()
        while due and due[0][0] <= now and self._issuing and self._left > 0:
            due_ns, _number, body = heapq.heappop(due)
            self._left -= 1
            self._sent += 1
            self.loop.bodies.append(body)
            self.loop.begin(-1, due_ns)
        if due and self._issuing and self._left > 0:
            self.loop.agenda.at(due[0][0], self._send_due, None)

    def check(self) -> None:
        if not self.loop.active and (not self._issuing or self._left <= 0):
            self._finish()


def run_of(phase: Phase, loop: Sender) -> PhaseRun:
    """The phase, ready to start."""
    return (DirectedRun if phase.arrivals is Arrivals.DIRECTED else PhaseRun)(phase, loop)
