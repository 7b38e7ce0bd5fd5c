"""What a worker notices about itself: the numbers of its `Tick`."""

from __future__ import annotations

import time
from collections.abc import Collection

from redline.load.frames import Tick
from redline.load.outbox import Outbox
from redline.load.stamps import StampClock
from redline.load.wire import Connection


class Health:
    """`pieces` and `bytes_in` are of finished requests; those of the ones under way are added when it looks."""

    def __init__(self, tick: Tick, clock: StampClock, outbox: Outbox) -> None:
        self.tick = tick
        self.pieces = self.bytes_in = 0
        self._clock, self._outbox = clock, outbox

    def finished(self, conn: Connection) -> None:
        self.pieces += len(conn.data)
        self.bytes_in += conn.size

    def look(self, active: int, conns: Collection[Connection]) -> Tick:
        tick, clock = self.tick, self._clock
        tick.cpu_s = time.process_time()
        tick.in_flight = active
        tick.pieces = self.pieces + sum(len(conn.data) for conn in conns)
        tick.bytes_in = self.bytes_in + sum(conn.size for conn in conns)
        tick.clock_error_ns, tick.clock_steps, tick.clock_step_ns = clock.error_ns, clock.steps, clock.step_ns
        tick.backlog_max, tick.spilled = self._outbox.waiting_max, self._outbox.spilled
        return tick
