"""When the next request goes out: closed loop, open loop, and how a stretch of load ends."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from redline.clock import now_ns
from redline.load.frames import Arrivals, End, Outgoing, Phase, PhaseDone, Tick
from redline.load.giving_up import fails, refuses
from redline.load.levels import Levels
from redline.load.timer import Agenda

_BACKOFF_NS = 100_000_000


class Sender(Protocol):
    """What a phase needs of the loop."""

    bodies: deque[Outgoing]
    active: int
    tick: Tick

    agenda: Agenda

    def begin(self, client: int, intended_ns: int) -> None:
        """Send the next body; the caller made sure that there is one."""
        ...

    def cut(self) -> None:
        """End every request in flight as cancelled."""
        ...

    def phase_over(self, done: PhaseDone) -> None: ...


class PhaseRun:
    """One phase under way."""

    def __init__(self, phase: Phase, loop: Sender) -> None:
        self.phase = phase
        self.loop = loop
        self.started_ns = phase.start_ns or now_ns()
        self._closed = phase.arrivals is Arrivals.CLOSED
        self._left = phase.requests or (1 << 62)
        if not self._closed:
            self._left = min(self._left, len(phase.offsets_ns))
        self._sent = 0
        self._ended = 0
        self._good = 0
        self._issuing = True
        self._over = False
        self._stopped_by = "requests"
        self._waiting: deque[tuple[int, int]] = deque()  # (client, intended) without a body
        self._held: deque[int] = deque()  # due, while as many as allowed are in flight
        self._letting_in = False
        self._most = 0 if self._closed else phase.max_in_flight
        self._levels = Levels(phase.levels, self.started_ns, loop.agenda, self._go) if phase.levels else None
        self._refused_since = self._refused = 0

    def start(self) -> None:
        phase = self.phase
        if self._levels is not None:
            self._levels.start()
        elif self._closed:
            for client in range(min(phase.clients, self._left)):
                place = phase.first_client + client * phase.client_step
                when = self.started_ns + phase.ramp_ns * place // (phase.clients * phase.client_step)
                self.loop.agenda.at(when, self._free, (client, when))
        elif self._left:
            self.loop.agenda.at(self.started_ns + phase.offsets_ns[0], self._arrival, 0)
        if phase.duration_ns:
            self.loop.agenda.at(self.started_ns + phase.duration_ns, self._time_up, None)
        if self._left <= 0:
            self._finish()

    def _free(self, who: tuple[int, int]) -> None:
        client, intended_ns = who
        if not self._issuing or self._left <= 0 or (self._levels is not None and not self._levels.holds(client)):
            return
        self._send(client, intended_ns)

    def _go(self, client: int, intended_ns: int) -> None:
        self._free((client, intended_ns))

    def _arrival(self, number: int) -> None:
        offsets = self.phase.offsets_ns
        now = now_ns()
        while self._issuing and self._left > 0:
            due = self.started_ns + offsets[number]
            if due > now:
                self.loop.agenda.at(due, self._arrival, number)
                return
            number += 1
            self._admit(due)

    def _admit(self, due: int) -> None:
        """Send what is due, or hold it back while too many are in flight: it keeps its due time."""
        if self._most and (self._held or self.loop.active + len(self._waiting) >= self._most):
            self.loop.tick.held_back += 1
            self._held.append(due)
            self._left -= 1
        else:
            self._send(-1, due)

    def _let_in(self) -> None:
        """As many as there is room for now. One that ends inside of its own send does not begin this again."""
        if self._letting_in:
            return
        self._letting_in = True
        while self._held and self._issuing and self.loop.active + len(self._waiting) < self._most:
            self._left += 1
            self._send(-1, self._held.popleft())
        self._letting_in = False

    def _send(self, client: int, intended_ns: int) -> None:
        if self._waiting or not self.loop.bodies:
            self.loop.tick.starved += 1
            self._waiting.append((client, intended_ns))
            self._left -= 1
            return
        self._left -= 1
        self._sent += 1
        self.loop.begin(client, intended_ns)

    def bodies_came(self) -> None:
        """New bodies are there: whoever waited for one goes first."""
        while self._waiting and self.loop.bodies and self._issuing:
            client, intended_ns = self._waiting.popleft()
            self._sent += 1
            self.loop.begin(client, intended_ns)

    def ended(self, client: int, end: End, good: bool, began_ns: int, ended_ns: int) -> None:
        """A request is over; in a closed loop its client goes on at the very instant of its last byte."""
        self._ended += 1
        self._good += good
        self._watch_refusals(end)
        if fails(self.phase, self._ended, self._good):
            self.stop("failing")
        self._let_in()
        if self._closed and self._issuing:
            if good:
                self._free((client, ended_ns))
            else:
                # a client that fails at once would otherwise spin
                when = max(ended_ns, began_ns + _BACKOFF_NS)
                self.loop.agenda.at(when, self._free, (client, when))

    def _watch_refusals(self, end: End) -> None:
        if end is not End.CONNECT:
            self._refused = 0
            return
        if self._refused == 0:
            self._refused_since = now_ns()
        self._refused += 1
        if refuses(self.phase, self._refused, now_ns() - self._refused_since):
            self.stop("refused")

    def _time_up(self, _: None) -> None:
        if self._over:
            return
        if self._issuing and (self._left > 0 or self._waiting or self._held):
            self._stopped_by = "duration"
        self._issuing = False
        self.loop.agenda.at(now_ns() + self.phase.drain_ns, self._drained, None)
        self.check()

    def _drained(self, _: None) -> None:
        if self._over:
            return
        if self.loop.active:
            self._stopped_by = "duration"
        self.loop.cut()
        self._finish()

    def stop(self, why: str) -> None:
        """Send nothing more and cut off what is in flight."""
        if self._over or not (self._issuing or self.loop.active):
            return
        self._issuing = False
        self._stopped_by = why
        # not from inside of the request that is just ending
        self.loop.agenda.at(now_ns(), self._cut, None)

    def _cut(self, _: None) -> None:
        if not self._over:
            self.loop.cut()
            self._finish()

    def check(self) -> None:
        """Over when nothing is left to send and nothing is in flight."""
        if not self.loop.active and (not self._issuing or (self._left <= 0 and not self._waiting and not self._held)):
            self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self._issuing = False
        done = PhaseDone(self._stopped_by, self.started_ns, now_ns(), self._sent, self.loop.tick)
        self.loop.phase_over(done)
