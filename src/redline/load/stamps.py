"""The kernel's receive stamps as monotonic time, through whatever the wall clock does meanwhile."""

from __future__ import annotations

import socket
import struct

from redline.clock import realtime_offset

SO_TIMESTAMPNS = 35  # SO_TIMESTAMPNS_OLD: a timespec of two longs, on every 64-bit Linux
_STEP_NS = 1_000_000
_unpack = struct.Struct("=qq").unpack  # struct timespec


class StampClock:
    """The distance from CLOCK_REALTIME, in which the kernel stamps, to CLOCK_MONOTONIC; read again every 100 ms."""

    def __init__(self, enabled: bool) -> None:
        self._guard = _guard() if enabled else None
        self._offset = realtime_offset()
        self.offset_ns = self._offset.offset_ns
        self.error_ns = self._offset.error_ns
        self.steps = 0
        """How often the wall clock was set, rather than slewed."""
        self.step_ns = 0

    def close(self) -> None:
        if self._guard is not None:
            self._guard.close()

    def reread(self) -> None:
        offset = realtime_offset(5)
        moved = abs(offset.offset_ns - self.offset_ns)
        if moved > _STEP_NS:
            self.steps += 1
            self.step_ns = max(self.step_ns, moved)
        self.offset_ns = offset.offset_ns
        self.error_ns = max(self.error_ns, offset.error_ns)

    def of(self, timespec: bytes, earliest_ns: int, latest_ns: int) -> int:
        """The stamp in monotonic ns, known to lie between the send and the read; `latest_ns` where it does not."""
        seconds, nanos = _unpack(timespec)
        return self.monotonic(seconds * 1_000_000_000 + nanos, earliest_ns, latest_ns)

    def monotonic(self, realtime_ns: int, earliest_ns: int, latest_ns: int) -> int:
        """The same of a stamp in ns."""
        stamp = realtime_ns - self.offset_ns
        if earliest_ns <= stamp <= latest_ns:
            return stamp
        self.reread()  # the wall clock was set
        stamp = realtime_ns - self.offset_ns
        return stamp if earliest_ns <= stamp <= latest_ns else latest_ns


def _guard() -> socket.socket:
    """A socket that keeps the kernel's receive stamps switched on: they start late for the first socket that asks."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock
