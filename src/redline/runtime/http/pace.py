"""When streams are written.

A write costs the same for one token as for ten, so with many streams each is written every `flush_s` at most. With few,
and at the first and last piece of any, at once. Where even that would take too much of the process, because a thousand
streams are open, the time between writes grows until writing takes no more than `SHARE` of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

SHARE = 0.25


class Written(Protocol):
    """A stream as its pace needs it. `due_s` is when it may be written again."""

    due_s: float
    urgent: bool

    def wake(self) -> None: ...


class Pace:
    """Belongs to the event loop. `touch` what has something to say, then `settle` once per delivery."""

    def __init__(self, flush_s: float, alone: int) -> None:
        self.flush_s = flush_s
        self.alone = alone
        self.open = 0
        """Streams."""
        self.write_s = 2e-5
        """What a write costs; learned."""
        self.writes = 0
        self._touched: dict[Written, None] = {}
        self._late: dict[Written, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def interval_s(self) -> float:
        return max(self.flush_s, self.open * self.write_s / SHARE)

    def touch(self, stream: Written) -> None:
        self._touched[stream] = None

    def forget(self, stream: Written) -> None:
        self._touched.pop(stream, None)
        self._late.pop(stream, None)

    def wrote(self, took_s: float) -> None:
        self.writes += 1
        self.write_s += 0.02 * (min(took_s, 1e-3) - self.write_s)

    def settle(self) -> None:
        if not self._touched:
            return
        now, few, interval = time.monotonic(), self.open <= self.alone, self.interval_s
        for stream in self._touched:
            if few or stream.urgent or now >= stream.due_s:
                self._late.pop(stream, None)
                stream.due_s = now + interval
                stream.wake()
            else:
                self._late[stream] = None
        self._touched.clear()
        if self._late and self._timer is None:
            first = min(stream.due_s for stream in self._late)
            self._timer = asyncio.get_running_loop().call_later(max(0.0, first - now), self._tick)

    def _tick(self) -> None:
        """All that wait are written together: their next times are then the same, and so is the next timer."""
        self._timer = None
        due = time.monotonic() + self.interval_s
        for stream in self._late:
            stream.due_s = due
            stream.wake()
        self._late.clear()
