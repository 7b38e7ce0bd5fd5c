"""Faults that the kernel log tells of while a run goes on: Xid of NVIDIA's driver, and the out-of-memory killer."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from redline.errors import Skipped
from redline.observe.event import Event

EVERY_S = 0.2
LASTS_NS = 1_000_000_000
"""A line of the log is an instant; what it tells of is taken to last so long."""
_XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")


class KernelLog:
    """Use as a context manager. Lines from before it are not read."""

    def __init__(self, handle: int, keep: Callable[[list[Event]], None]) -> None:
        self._handle, self._keep = handle, keep
        self._stop = threading.Event()

    def __enter__(self) -> KernelLog:
        with suppress(OSError):
            os.lseek(self._handle, 0, os.SEEK_END)
        self._thread = threading.Thread(target=self._loop, name="redline-kmsg", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(5)
        os.close(self._handle)

    def _loop(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._read()
        self._read()

    def _read(self) -> None:
        while True:
            try:
                record = os.read(self._handle, 8192).decode(errors="replace")
            except BrokenPipeError:  # the log overtook us
                continue
            except OSError:
                return
            event = parse(record)
            if event is not None:
                self._keep([event])


def open_log(keep: Callable[[list[Event]], None], path: str = "/dev/kmsg") -> KernelLog | Skipped:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Skipped(f"the kernel log is not watched for Xid: {error.strerror}", "run redline as root")
    return KernelLog(handle, keep)


def parse(record: str) -> Event | None:
    """A record of /dev/kmsg: `priority,number,microseconds since boot,flags;text`."""
    head, _, text = record.partition(";")
    fields = head.split(",")
    found = _XID.search(text)
    if found is None or len(fields) < 3 or not fields[2].isdigit():
        return None
    at_ns = int(fields[2]) * 1000
    marked = " (SIMULATED)" if "SIMULATED" in text else ""
    return Event("xid", at_ns, at_ns + LASTS_NS, f"Xid {found[2]}{marked}", text.partition("\n")[0].strip())
