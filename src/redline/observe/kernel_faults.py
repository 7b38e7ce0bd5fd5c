"""Faults that the kernel log tells of while a run goes on, as events: Xids of NVIDIA's driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from redline.errors import Skipped
from redline.observe.event import Event
from redline.observe.kernel_log import KMSG, KernelLog, Xid

EVERY_S = 0.2
LASTS_NS = 1_000_000_000
"""A line of the log is an instant; what it tells of is taken to last so long."""


class KernelFaults:
    """Use as a context manager. Lines from before it are not read. `notes` are complete after it."""

    def __init__(self, log: KernelLog, keep: Callable[[list[Event]], None]) -> None:
        self._log, self._keep = log, keep
        self.notes: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="redline-kmsg", daemon=True)

    @classmethod
    def open(cls, keep: Callable[[list[Event]], None], path: Path = KMSG) -> Self | Skipped:
        log = KernelLog.open(path)
        return log if isinstance(log, Skipped) else cls(log, keep)

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._log.to_end()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(5)
        self._log.close()

    def _loop(self) -> None:
        try:
            while not self._stop.wait(EVERY_S):
                self._read()
            self._read()
        except Exception as error:  # the run is worth more than its events
            self.notes.append(f"the kernel log was not watched to the end: {type(error).__name__}: {error}")

    def _read(self) -> None:
        events = [event_of(xid) for xid in self._log.read()]
        if events:
            self._keep(events)


def event_of(xid: Xid) -> Event:
    marked = " (SIMULATED)" if xid.simulated else ""
    return Event("xid", xid.at_ns, xid.at_ns + LASTS_NS, f"Xid {xid.number}{marked}", xid.text)
