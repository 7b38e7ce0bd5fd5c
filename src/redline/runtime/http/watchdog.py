"""Whether the engine moves while it has work."""

from __future__ import annotations

import time
from collections.abc import Callable

FLOOR_S = 2.0
"""A first long prompt may take a hundred times the steps before it."""
SLACK = 4.0


class Watchdog:
    """Looks at a number that grows with every step. Red after `SLACK` times the longest step so far, at the latest
    after `stall_s`.

    Counts the time that it saw pass: a process that was stopped, or a loop that was held up, is no hung engine.
    """

    def __init__(self, stall_s: float, tick_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_s = max(stall_s - 2 * tick_s, tick_s)
        self._tick_s = tick_s
        self._clock = clock
        self._looked_at = clock()
        self._last = -1
        self.longest_s = 0.0
        self.still_s = 0.0
        """Since the last move."""

    @property
    def limit_s(self) -> float:
        return min(self._most_s, max(FLOOR_S, SLACK * self.longest_s))

    def look(self, progress: int, busy: bool) -> None:
        """To be called every `tick_s`."""
        now = self._clock()
        passed = min(now - self._looked_at, 2 * self._tick_s)
        self._looked_at = now
        if not busy or progress != self._last:
            if busy:
                self.longest_s = max(self.longest_s, self.still_s)
            self._last, self.still_s = progress, 0.0
        else:
            self.still_s += passed

    def trouble(self) -> str:
        """'' while all is well."""
        if self.still_s <= self.limit_s:
            return ""
        return f"no step was finished for {self.still_s:.1f} s while requests are in"
