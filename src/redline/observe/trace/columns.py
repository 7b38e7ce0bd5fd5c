"""Events of a trace as columns: 33 bytes each, however long the names and arguments were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = ("kernel", "copy", "gpu_annotation", "annotation", "op", "launch")
"""kernel and copy run on the device; gpu_annotation is a user's range seen from there; annotation, op and launch are
the host's: a user's range, an operator, a call of the driver."""
KERNEL, COPY, GPU_ANNOTATION, ANNOTATION, OP, LAUNCH = range(len(KINDS))

TYPES = (np.int8, np.int32, np.float64, np.float64, np.int32, np.int64)
Row = tuple[int, int, float, float, int, int]
"""kind, name, start in µs, length in µs, track, correlation (0: none)"""


@dataclass
class Readout:
    """How the reading went. `trouble` is '' for a whole trace, else what was wrong, in words."""

    file: str
    bytes_read: int = 0
    events: int = 0
    kept: int = 0
    bad: int = 0
    trouble: str = ""

    def sentence(self) -> str:
        """What was readable."""
        text = f"{self.kept:,} of {self.events:,} events kept"
        if self.bad:
            text += f", {self.bad:,} were malformed and left out"
        return f"{text}; {self.trouble}" if self.trouble else text


@dataclass(frozen=True)
class TraceColumns:
    """Events by start. `tracks` name (process, thread) or (device, stream)."""

    names: tuple[str, ...]
    tracks: tuple[tuple[str, str], ...]
    kind: Any
    name: Any
    start_us: Any
    length_us: Any
    track: Any
    correlation: Any
    readout: Readout = field(default_factory=lambda: Readout(""))

    def __len__(self) -> int:
        return len(self.kind)


class Collector:
    """Grows columns from batches of rows."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._tracks: dict[tuple[str, str], int] = {}
        self._parts: list[list[Any]] = [[] for _ in TYPES]
        self.count = 0

    def name(self, text: str) -> int:
        found = self._names.get(text)
        if found is None:
            found = self._names[text] = len(self._names)
        return found

    def track(self, process: object, thread: object) -> int:
        key = (str(process), str(thread))
        found = self._tracks.get(key)
        if found is None:
            found = self._tracks[key] = len(self._tracks)
        return found

    def add(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        for part, column, kind in zip(self._parts, zip(*rows, strict=True), TYPES, strict=True):
            part.append(np.array(column, kind))
        self.count += len(rows)

    def columns(self, readout: Readout) -> TraceColumns:
        """Ends the collecting. One column at a time: at no moment is everything there twice."""
        start = self._joined(2)
        order = np.argsort(start, kind="stable")
        start = start[order]
        kind, name = self._joined(0)[order], self._joined(1)[order]
        length, track, correlation = (self._joined(place)[order] for place in (3, 4, 5))
        names, tracks = tuple(self._names), tuple(self._tracks)
        return TraceColumns(names, tracks, kind, name, start, length, track, correlation, readout)

    def _joined(self, place: int) -> Any:
        parts, self._parts[place] = self._parts[place], []
        return np.concatenate([np.empty(0, TYPES[place]), *parts])
