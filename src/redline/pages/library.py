"""What takes seconds to compute, kept for the next page that asks: reports of runs, comparisons of two.

A run that has ended never changes, one that goes on changes with every load point, so its stamp is part of the key. One
thing is computed at a time: beside a measurement the pages must not take a second core.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from redline.report.assemble import load_report
from redline.report.model import Report
from redline.report.versus import Versus, compare_runs
from redline.store.browse import Browser
from redline.store.rows import PointRow

MOST = 40
UNFINISHED_S = 15.0
"""How long the numbers of a load point under way are good enough."""
_T = TypeVar("_T")


class Library:
    """Shared by all requests; any thread may ask."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shelf: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        self._busy = threading.Lock()

    def report(self, run_id: str) -> Report:
        """UsageError when there is no such run (any more)."""
        with Browser.open(self.path) as reader:
            run_id = reader.run(run_id).id
            stamp = reader.stamp(run_id) or ()
            going_on = stamp[:1] == ("running",) and not stamp[-1]
            turn = int(time.monotonic() / UNFINISHED_S) if going_on else 0

            def compute() -> Report:
                with reader.snapshot():
                    return load_report(reader, [run_id])

            return self._kept(("report", run_id, stamp, turn), compute)

    def has_report(self, run_id: str) -> bool:
        """Whether the report of a run that is over is at hand."""
        with Browser.open(self.path) as reader:
            return (*self._file(), "report", run_id, reader.stamp(run_id) or (), 0) in self._shelf

    def request_counts(self, reader: Browser, point: PointRow) -> dict[str, int]:
        """How many requests of a load point are of each kind; of a million it takes a second to say."""
        if not point.complete:
            return reader.request_counts(point.id)
        return self._kept(("counts", point.id, point.started_ns), lambda: reader.request_counts(point.id))

    def versus(self, a: str, b: str, metrics: tuple[str, ...], tolerance: float) -> Versus:
        """As `redline compare A B` gives it."""
        with Browser.open(self.path) as reader:
            stamps = tuple(reader.stamp(reader.run(side.partition(":")[0]).id) for side in (a, b))

        def compute() -> Versus:
            return compare_runs(a, b, db=self.path, metrics=metrics, tolerance=tolerance)

        return self._kept(("versus", a, b, metrics, tolerance, stamps), compute)

    def _file(self) -> tuple[int, int]:
        """Another file under the same name is another store."""
        about = self.path.stat()
        return about.st_dev, about.st_ino

    def _kept(self, key: tuple[Any, ...], compute: Callable[[], _T]) -> _T:
        key = (*self._file(), *key)
        found: _T
        if (found := self._taken(key)) is not None:
            return found
        with self._busy:
            if (found := self._taken(key)) is not None:
                return found
            made = compute()
            with self._lock:
                self._shelf[key] = made
                while len(self._shelf) > MOST:
                    self._shelf.popitem(last=False)
            return made

    def _taken(self, key: tuple[Any, ...]) -> Any:
        with self._lock:
            if key in self._shelf:
                self._shelf.move_to_end(key)
            return self._shelf.get(key)
