"""Events of a trace as columns, and the time that they cover: overlapping ones are counted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from redline.analyse.profile.classes import CLASSES, class_of

KERNEL, COPY, GPU_ANNOTATION, ANNOTATION, OP, LAUNCH = range(6)
"""What an event is: the numbers of `redline.observe.trace.columns.KINDS`."""
PIECE = 100_000
"""Events swept at once, so that memory stays small however long the trace is."""


@dataclass(frozen=True)
class Spans:
    """Events by start, times in µs. `track` is an index into `tracks`: (process, thread) or (device, stream)."""

    names: tuple[str, ...]
    tracks: tuple[tuple[str, str], ...]
    kind: Any
    name: Any
    start: Any
    length: Any
    track: Any
    correlation: Any

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def end(self) -> Any:
        return self.start + self.length

    def where(self, mask: Any) -> Spans:
        columns = (self.kind, self.name, self.start, self.length, self.track, self.correlation)
        return Spans(self.names, self.tracks, *(column[mask] for column in columns))

    def of(self, *kinds: int) -> Spans:
        return self.where(np.isin(self.kind, kinds))

    def between(self, low: float, high: float) -> Spans:
        """Those that start in [low, high)."""
        first, last = np.searchsorted(self.start, (low, high))
        return self.where(slice(int(first), int(last)))

    @property
    def on_device(self) -> bool:
        return bool((self.kind == KERNEL).any())

    def classes(self) -> Any:
        """The class of each event, as an index into CLASSES."""
        table = np.array([CLASSES.index(class_of(name)) for name in self.names] or [0], np.int8)
        return table[self.name]


@dataclass(frozen=True)
class Covered:
    """µs during which something ran, split by class so that the parts add up to `busy`; `hidden` is what ran under
    something else."""

    busy: float
    by_class: Any
    hidden: float


def in_turn(start: Any, length: Any, track: Any) -> tuple[Any, Any]:
    """Start and length of each interval (sorted by start) less the time in which an earlier one of its track still
    runs. Kernels of one stream overlap where a successor is launched before its predecessor has ended (programmatic
    dependent launch): until then it sits on the device and waits, and the time is its predecessor's."""
    start, end = np.array(start, float), np.array(start, float) + length
    for one in np.unique(track):
        mine = np.flatnonzero(track == one)
        before = np.maximum.accumulate(end[mine])[:-1]
        start[mine[1:]] = np.maximum(start[mine[1:]], before)
    return start, np.maximum(end - start, 0.0)


def covered(start: Any, length: Any, kind: Any) -> Covered:
    """Union of intervals sorted by start. An instant at which several run belongs to the class that comes first in
    CLASSES."""
    total = np.zeros(len(CLASSES))
    for piece in _pieces(start, length):
        total += _sweep(start[piece], length[piece], kind[piece])
    busy = float(total.sum())
    return Covered(busy, total, max(0.0, float(length.sum()) - busy))


def _pieces(start: Any, length: Any) -> Iterator[slice]:
    """Cuts where nothing runs, about every PIECE events."""
    if len(start) <= PIECE:
        yield slice(0, len(start))
        return
    latest = np.maximum.accumulate(start + length)
    quiet = np.flatnonzero(start[1:] >= latest[:-1]) + 1
    begin = 0
    while begin < len(start):
        place = int(np.searchsorted(quiet, begin + PIECE))
        end = int(quiet[place]) if place < len(quiet) else len(start)
        yield slice(begin, end)
        begin = end


def _sweep(start: Any, length: Any, kind: Any) -> Any:
    """µs by class."""
    count = len(start)
    total = np.zeros(len(CLASSES))
    if not count:
        return total
    times = np.concatenate([start, start + length])
    order = np.argsort(times, kind="stable")
    lengths = np.diff(times[order])
    taken = np.zeros(len(lengths), bool)
    for place in np.unique(kind):
        change = np.where(kind == place, 1, 0)
        running = np.cumsum(np.concatenate([change, -change])[order])[:-1] > 0
        mine = running & ~taken
        total[place] += lengths[mine].sum()
        taken |= running
    return total


def gaps(start: Any, length: Any) -> Any:
    """µs between the end of everything so far and the next start, where nothing runs."""
    if len(start) < 2:
        return np.empty(0)
    latest = np.maximum.accumulate(start + length)
    between = start[1:] - latest[:-1]
    return between[between > 0]
