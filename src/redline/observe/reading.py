"""What a sampler writes its values into, and how counters become rates."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from redline.clock import now_ns
from redline.observe.sample import NO_LABELS, Sample
from redline.sampled import SAMPLED

_LARGEST = 1 << 18
_FULL = 2048
"""Bytes from which on a read may have ended because the next line did not fit: no line is longer than half a page."""


class Reading:
    """Samples of one instant, with the units and decimals of the table of names."""

    def __init__(self, t_ns: int | None = None) -> None:
        self.t_ns = now_ns() if t_ns is None else t_ns
        self.samples: list[Sample] = []

    def put(self, name: str, value: float | None, labels: Mapping[str, str] = NO_LABELS) -> None:
        """None and what is no number are left out."""
        if value is None or not math.isfinite(value):
            return
        told = SAMPLED[name]
        rounded = round(value, told.digits) if told.digits else round(value)
        self.samples.append(Sample(self.t_ns, name, rounded, told.unit, labels))


class Rates:
    """Per second since the look before. None at the first look, and when a counter went backwards: it was reset."""

    def __init__(self) -> None:
        self._last: dict[object, tuple[int, float]] = {}
        self.resets = 0

    def per_s(self, key: object, t_ns: int, value: float | None, scale: float = 1.0) -> float | None:
        if value is None:
            return None
        before = self._last.get(key)
        self._last[key] = (t_ns, value)
        if before is None or t_ns <= before[0]:
            return None
        if value < before[1]:
            self.resets += 1
            return None
        return (value - before[1]) * scale * 1e9 / (t_ns - before[0])


class Kept:
    """Files of /proc, opened once and read again from their start: a third of the cost of opening each time."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root
        self._open: dict[str, int | None] = {}

    def read(self, name: str) -> str:
        """Content; '' when there is no such file, or it is gone or not ours to read."""
        handle = self._open.get(name, -1)
        if handle == -1:
            try:
                handle = os.open(f"{self._root}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                handle = None
            self._open[name] = handle
        if handle is None:
            return ""
        try:
            content = part = os.pread(handle, _LARGEST, 0)
            # Of a list (vmstat, diskstats, net/dev) the kernel gives what fits a page, however much is asked for.
            while len(part) >= _FULL:
                part = os.pread(handle, _LARGEST, len(content))
                content += part
        except OSError:
            self.forget(name)
            return ""
        return content.decode(errors="replace")

    def forget(self, name: str) -> None:
        """Of a process or thread that has ended; a later one of that name is opened anew."""
        if (handle := self._open.pop(name, None)) is not None:
            os.close(handle)

    def close(self) -> None:
        for name in list(self._open):
            self.forget(name)
