"""One clock for everything: monotonic nanoseconds. Wall time appears once per run.

The kernel stamps received segments with CLOCK_REALTIME (SO_TIMESTAMPNS), so the client needs the distance
between the two clocks. Both are read as a sandwich and the tightest of several reads wins; its half-width
bounds the error. The distance is read again while a run goes on, because NTP may step or slew CLOCK_REALTIME.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

now_ns = time.monotonic_ns


@dataclass(frozen=True)
class ClockOffset:
    """monotonic = realtime - offset_ns, known to within ± error_ns."""

    offset_ns: int
    error_ns: int

    def to_monotonic(self, realtime_ns: int) -> int:
        return realtime_ns - self.offset_ns


def realtime_offset(reads: int = 9) -> ClockOffset:
    """Distance from CLOCK_MONOTONIC to CLOCK_REALTIME, the tightest of `reads` sandwiches."""
    best: ClockOffset | None = None
    for _ in range(reads):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        error = (after - before + 1) // 2
        if best is None or error < best.error_ns:
            best = ClockOffset(offset_ns=wall - (before + after) // 2, error_ns=error)
    assert best is not None
    return best


def wall_time() -> str:
    """Now, as UTC ISO 8601 with milliseconds: `2026-05-04T12:34:56.789Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
