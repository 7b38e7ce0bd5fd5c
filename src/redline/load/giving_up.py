"""When a phase is given up early: the server refuses connections for a second, or nothing that ends is any good."""

from __future__ import annotations

import time
from collections.abc import Callable

from redline.load.frames import Phase, Tick

_REFUSED_NS = 1_000_000_000
_REFUSED_MIN = 8
_FAILING_MIN = 50


def refuses(phase: Phase, in_a_row: int, for_ns: int) -> bool:
    """So many connections were refused in a row, the first of them so long ago."""
    return phase.ends_fast and in_a_row >= _REFUSED_MIN and for_ns > _REFUSED_NS


def fails(phase: Phase, ended: int, good: int) -> bool:
    """Of so many requests that ended, so many were good."""
    return phase.ends_fast and not good and ended > _FAILING_MIN + 2 * phase.clients


class GivingUp:
    """The rules by which a single worker gives up, over the ticks of several: nothing good, or refusals in a row."""

    def __init__(self, phase: Phase, before: Tick) -> None:
        self._phase = phase
        self._before = self._last = before
        self._refused = 0
        self._since_ns = 0

    def judge(self, tick: Tick, now_ns: int) -> str:
        """`failing`, `refused` or nothing."""
        ended, good = tick.ended - self._before.ended, tick.good - self._before.good
        refused = tick.refused - self._last.refused
        if tick.ended - self._last.ended > refused:
            self._refused = 0
        elif refused:
            self._since_ns = self._since_ns if self._refused else now_ns
            self._refused += refused
        self._last = tick
        if refuses(self._phase, self._refused, now_ns - self._since_ns):
            return "refused"
        return "failing" if fails(self._phase, ended, good) else ""


def gone(alive: Callable[[], bool], within_s: float = 0.5) -> bool:
    """Dead, or about to be: a process that ends closes its sockets a little before it is gone."""
    until = time.monotonic() + within_s
    while alive():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
