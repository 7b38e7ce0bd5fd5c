"""A timer that wakes an epoll loop at an absolute monotonic instant, to the microsecond.

epoll_wait counts its timeout in milliseconds, which is too coarse to send a request on time; timerfd(2) is not.
Python offers it from 3.13 on, hence ctypes.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import time
from collections.abc import Callable
from typing import Any

from redline.clock import now_ns
from redline.units import NS_PER_S

_TFD_TIMER_ABSTIME = 1
_TFD_NONBLOCK = 0o4000
_TFD_CLOEXEC = 0o2000000

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Timer:
    """One timerfd: register `fd` for EPOLLIN; it is readable from the armed instant until it is armed again."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self.fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._spec = _Itimerspec()
        self._armed_ns = 0

    def arm(self, at_ns: int) -> None:
        """Wake at `at_ns` (monotonic; the past means at once). Replaces what was armed before."""
        if at_ns == self._armed_ns and at_ns > time.monotonic_ns():
            return
        self._armed_ns = at_ns
        self._spec.it_value.tv_sec, self._spec.it_value.tv_nsec = divmod(max(at_ns, 1), NS_PER_S)
        _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Agenda:
    """What is due when. The timer is armed for the next item."""

    def __init__(self) -> None:
        self.timer = Timer()
        self._items: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._sequence = 0

    def at(self, when_ns: int, do: Callable[[Any], None], what: Any) -> None:
        """Call `do(what)` at `when_ns`; items of one instant in the order in which they were added."""
        self._sequence += 1
        heapq.heappush(self._items, (when_ns, self._sequence, do, what))

    def run_due(self) -> None:
        """Everything that is due, then arm the timer for what comes next."""
        items = self._items
        while items and items[0][0] <= now_ns():
            _, _, do, what = heapq.heappop(items)
            do(what)
        if items:
            self.timer.arm(items[0][0])

    def rest(self, longest_ns: int) -> None:
        """Sleep, but never past what is due next."""
        now = now_ns()
        until = min(self._items[0][0], now + longest_ns) if self._items else now + longest_ns
        if until > now:
            time.sleep((until - now) / NS_PER_S)
