"""Reads a model's files into the page cache, in parallel and in order, and checks that they stayed there."""

from __future__ import annotations

import mmap
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redline.errors import EnvironmentFault, UsageError
from redline.node.memory import memory_facts
from redline.node.residency import resident_bytes
from redline.node.weights import model_files

BLOCK = 16 << 20
SPAN = 16 * BLOCK
"""Of one file, read by one worker in one go: long enough for the device to see a sequential stream."""
RESERVE = 0.03
"""Share of the free memory that is left alone: the engine that is to load the files needs some, too."""
STAYED = 0.999
"""A share of resident bytes from which on the files count as resident."""

Progress = Callable[[int, int], None]
"""Called with bytes read and bytes in all."""


@dataclass(frozen=True)
class Resident:
    """One file. `after` None: the kernel does not tell us."""

    name: str
    size: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Prewarmed:
    """`read` counts bytes that went through read(2), from disk or from the cache."""

    folder: str
    files: tuple[Resident, ...]
    read: int
    seconds: float
    workers: int
    interrupted: bool = False

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def resident(self) -> int | None:
        """Bytes in the cache afterwards; None when unknown of any file."""
        known = [file.after for file in self.files if file.after is not None]
        return sum(known) if len(known) == len(self.files) else None

    @property
    def share(self) -> float | None:
        return None if self.resident is None else self.resident / self.size if self.size else 1.0

    @property
    def gb_per_s(self) -> float:
        return self.read / self.seconds / 1e9 if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        derived = {"bytes": self.size, "resident": self.resident, "share": self.share, "gb_per_s": self.gb_per_s}
        return asdict(self) | derived


def prewarm(
    folder: Path,
    *,
    workers: int = 0,
    force: bool = False,
    progress: Progress = lambda done, total: None,
    root: Path = Path("/"),
) -> Prewarmed:
    """Reads `folder`'s model. `workers` 0: two per usable core, 4 to 16. Ctrl-C ends it and says how far it got.

    Raises EnvironmentFault when the files cannot fit (`force` leaves the check out), ModelNotFound without weights.
    """
    if workers < 0:
        raise UsageError(f"{workers} workers make no sense", fix="1 or more, or 0 for redline's choice")
    files = model_files(folder)
    before = {path: _resident(path) for path in files}
    sizes = {path: path.stat().st_size for path in files}
    if not force and (why := cannot_fit(sum(sizes.values()), sum(found or 0 for found in before.values()), root)):
        raise EnvironmentFault(f"{folder} does not fit into the page cache", why=why, fix=_FIX)
    workers = workers or max(4, min(16, 2 * len(os.sched_getaffinity(0))))
    began = time.perf_counter()
    read, interrupted = read_through([(path, sizes[path]) for path in files], workers, progress)
    took = time.perf_counter() - began
    found = tuple(Resident(path.name, sizes[path], before[path], _resident(path)) for path in files)
    return Prewarmed(str(folder), found, read, took, workers, interrupted)


_FIX = "free memory, raise the limit, take a smaller model, or --force to fill what there is"


def cannot_fit(size: int, resident: int, root: Path = Path("/")) -> str:
    """'' when `size` bytes, `resident` of them there already, fit into memory and under the control group's limit.

    MemAvailable counts cached pages as available, so the whole size stands against it. The limit only counts what this
    group is charged for: the pages that it still has to bring in.
    """
    memory = memory_facts(root)
    available = int(memory["available_bytes"] * (1 - RESERVE))
    if size > available:
        return f"it has {size / 1e9:.2f} GB, and {available / 1e9:.2f} GB of memory can be had"
    if memory["limit_bytes"] is not None:
        room = int(memory["usable_bytes"] * (1 - RESERVE))
        if size - resident > room:
            return (
                f"{(size - resident) / 1e9:.2f} GB are to be read, the control group leaves {room / 1e9:.2f} GB,"
                " and cached pages are charged to the group that reads them"
            )
    return ""


def _resident(path: Path) -> int | None:
    try:
        return resident_bytes(path)
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be read: {error.strerror}", fix="run as a user who may") from error


class _Reading:
    """Spans of files, taken in order by workers with a buffer each."""

    def __init__(self, files: Sequence[tuple[Path, int]]) -> None:
        self.spans: queue.SimpleQueue[tuple[Path, int, int]] = queue.SimpleQueue()
        for path, size in files:
            for start in range(0, size, SPAN):
                self.spans.put((path, start, min(size, start + SPAN)))
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.read = 0
        self.fault: OSError | None = None

    def work(self) -> None:
        # one anonymous mapping per worker: no allocation and no page fault per block
        with mmap.mmap(-1, BLOCK) as buffer:
            while not self.stop.is_set():
                try:
                    path, start, end = self.spans.get_nowait()
                    self._span(path, start, end, buffer)
                except queue.Empty:
                    return
                except OSError as error:
                    self.fault = error
                    self.stop.set()

    def _span(self, path: Path, start: int, end: int, buffer: mmap.mmap) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_SEQUENTIAL)
            with memoryview(buffer) as view:
                while start < end and not self.stop.is_set():
                    with view[: min(BLOCK, end - start)] as part:
                        got = os.preadv(descriptor, [part], start)
                    if not got:
                        raise OSError(5, "the file became shorter while it was read", str(path))
                    start += got
                    with self.lock:
                        self.read += got
        finally:
            os.close(descriptor)


def read_through(
    files: Sequence[tuple[Path, int]], workers: int, progress: Progress = lambda done, total: None
) -> tuple[int, bool]:
    """(bytes read, whether Ctrl-C ended it). Raises EnvironmentFault when a file cannot be read."""
    reading, total = _Reading(files), sum(size for _, size in files)
    threads = [threading.Thread(target=reading.work, daemon=True) for _ in range(min(workers, reading.spans.qsize()))]
    interrupted = False
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
                progress(reading.read, total)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        reading.stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if reading.fault is not None:
        raise EnvironmentFault(f"a file cannot be read: {reading.fault}", fix="check the disk or the mount: dmesg, df")
    return reading.read, interrupted
