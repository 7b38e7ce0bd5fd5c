"""What a worker notices about itself: the numbers of its `Tick`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from redline.load.frames import End, Tick
from redline.load.lag import LoopLag
from redline.load.outbox import Outbox
from redline.load.stamps import StampClock
from redline.load.timer import Agenda
from redline.load.wire import Connection


class Health:
    """`pieces` and `bytes_in` are of finished requests; those of the ones under way are added when it looks, also what
    is `held` for them: (pieces, bytes)."""

    def __init__(
        self, tick: Tick, clock: StampClock, outbox: Outbox, agenda: Agenda, held: Callable[[], tuple[int, int]]
    ) -> None:
        self.tick = tick
        self._held = held
        self.pieces = self.bytes_in = 0
        self._clock, self._outbox = clock, outbox
        self._lag = LoopLag(agenda)

    def start_over(self) -> None:
        """A phase begins: the lag of the loop is counted anew."""
        self._lag.start_over()

    def finished(self, conn: Connection) -> None:
        self.pieces += len(conn.data)
        self.bytes_in += conn.size

    def over(self, end: End, *, good: bool) -> None:
        self.tick.ended += 1
        self.tick.good += good
        self.tick.refused += end is End.CONNECT

    def look(self, active: int, conns: Collection[Connection]) -> Tick:
        tick, clock = self.tick, self._clock
        tick.cpu_s = time.process_time()
        tick.in_flight = active
        pieces, size = self._held()
        tick.pieces = self.pieces + pieces + sum(len(conn.data) for conn in conns)
        tick.bytes_in = self.bytes_in + size + sum(conn.size for conn in conns)
        tick.clock_error_ns, tick.clock_steps, tick.clock_step_ns = clock.error_ns, clock.steps, clock.step_ns
        tick.backlog_max, tick.spilled = self._outbox.waiting_max, self._outbox.spilled
        tick.loop_lag_ms_p50, tick.loop_lag_ms_p99 = self._lag.at_ms(0.5), self._lag.at_ms(0.99)
        tick.loop_lag_ms_max = self._lag.max_ms
        return tick
