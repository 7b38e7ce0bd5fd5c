"""Cheap reads of /proc for the samplers, and the tree of processes that an engine is."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
THOROUGH_EVERY_S = 1.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def read(path: str) -> str:
    """Content of a small file; '' when it is gone or not ours to read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(handle, 65536).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Usage:
    """What one process has used: CPU seconds and page faults so far, resident bytes and threads now."""

    start_ticks: int
    cpu_s: float
    rss_bytes: int
    threads: int
    faults: int = 0
    major_faults: int = 0


def usage(pid: int) -> Usage | None:
    """None when the process is gone or only waits to be reaped."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 22 or fields[0] in "ZX":
        return None
    cpu = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    major = int(fields[9])
    return Usage(int(fields[19]), cpu, int(fields[21]) * PAGE_BYTES, int(fields[17]), int(fields[7]) + major, major)


def children(pid: int, *, of_all_threads: bool = True) -> list[int]:
    """Direct children; those that the main thread started, or those of every thread (one file per thread)."""
    if not of_all_threads:
        return [int(child) for child in read(f"/proc/{pid}/task/{pid}/children").split()]
    try:
        with os.scandir(f"/proc/{pid}/task") as threads:
            names = [thread.name for thread in threads]
    except OSError:
        return []
    return [int(child) for thread in names for child in read(f"/proc/{pid}/task/{thread}/children").split()]


def rollup(pid: int) -> int | None:
    """Proportional set size in bytes: shared pages divided among their users. None where it cannot be read.

    The kernel walks all page tables of the process for it: milliseconds per process, so not at every tick.
    """
    return _kilobytes(read(f"/proc/{pid}/smaps_rollup"), "Pss:")


def high_water(pid: int) -> int | None:
    """Most bytes that were ever resident, start-up included."""
    return _kilobytes(read(f"/proc/{pid}/status"), "VmHWM:")


def _kilobytes(content: str, name: str) -> int | None:
    for line in content.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


@dataclass
class Tree:
    """The processes in `roots` and all their descendants, found again at each look.

    An engine may have hundreds of threads, so children of threads other than the main one are looked for once a second.
    One that was seen stays in the tree when its parent dies. CPU time of those that ended is kept, so that the sum
    never falls. A pid that was given to another process is told by its start. `without` are trees of others below it.
    """

    roots: tuple[int, ...]
    members: dict[int, Usage] = field(default_factory=dict)
    ended_cpu_s: float = 0.0
    without: frozenset[int] = frozenset()
    _thorough_at: float = 0.0

    def look(self) -> dict[int, Usage]:
        """The living, by pid."""
        alive: dict[int, Usage] = {}
        queue = [*self.roots, *self.members]
        thorough = time.monotonic() >= self._thorough_at
        if thorough:
            self._thorough_at = time.monotonic() + THOROUGH_EVERY_S
        while queue:
            pid = queue.pop()
            if pid in alive or pid in self.without:
                continue
            now = usage(pid)
            before = self.members.get(pid)
            if now is None or (before is not None and before.start_ticks != now.start_ticks):
                continue
            alive[pid] = now
            queue += children(pid, of_all_threads=thorough)
        self.ended_cpu_s += sum(gone.cpu_s for pid, gone in self.members.items() if pid not in alive)
        self.members = alive
        return alive

    @property
    def cpu_s(self) -> float:
        return self.ended_cpu_s + sum(member.cpu_s for member in self.members.values())


def has_children_file() -> bool:
    """False on a kernel without CONFIG_PROC_CHILDREN: then only the processes that redline started are seen."""
    pid = os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").exists()
