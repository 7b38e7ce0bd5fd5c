"""Faults planted beside a run at random times, so that what `redline explain` finds can be held against the truth.

Each plant touches only processes that it started or was given, undoes what it did, also when the run fails, and notes
when it was at work. Times are random: whatever is planted at even intervals fits every cause with the same interval.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from types import TracebackType

import psutil

from redline.clock import now_ns
from redline.errors import Skipped

MEMORY_V1 = Path("/sys/fs/cgroup/memory")
_AUTOGROUP = "/proc/{pid}/autogroup"
_BUSY = "(while :; do :; done) </dev/null >/dev/null 2>&1 & echo $!"


class Plant(ABC):
    """A context manager: begins at random times for about `lasts_s`, about `share` of the time, until it is left."""

    def __init__(self, lasts_s: float = 0.7, share: float = 0.25, seed: int = 0) -> None:
        self.lasts_s, self.share = lasts_s, share
        self.windows: list[tuple[int, int]] = []
        """When it was at work, monotonic ns."""
        self._random = Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="redline-plant", daemon=True)

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def end(self) -> None:
        """Undoes `begin`; safe to call twice."""

    def prepare(self) -> None:  # noqa: B027  (a hook: most have nothing to do)
        """Once, before the first."""

    def clean(self) -> None:  # noqa: B027
        """Once, after the last."""

    def __enter__(self) -> Plant:
        try:
            self.prepare()
        except BaseException:
            self.clean()
            raise
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.end()
        self.clean()

    def _loop(self) -> None:
        calm_s = self.lasts_s * (1 - self.share) / self.share
        while not self._stop.wait(self._random.uniform(0.4, 1.6) * calm_s):
            began = now_ns()
            try:
                self.begin()
                self._stop.wait(self._random.uniform(0.6, 1.4) * self.lasts_s)
            finally:
                self.end()
            self.windows.append((began, now_ns()))


class Stopped(Plant):
    """SIGSTOP and SIGCONT to processes that the caller started."""

    def __init__(self, pids: Sequence[int], **rest: float) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self._pids = tuple(pids)

    def begin(self) -> None:
        self._all(signal.SIGSTOP)

    def end(self) -> None:
        self._all(signal.SIGCONT)

    def _all(self, number: signal.Signals) -> None:
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Hogged(Plant):
    """The processes pinned to one core, and `hogs` busy loops of ours on the same one."""

    def __init__(self, pids: Sequence[int], core: int, hogs: int = 4, **rest: float) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self._pids, self._core, self._count = tuple(pids), core, hogs
        self._hogs: list[psutil.Process] = []

    def prepare(self) -> None:
        for pid in self._pids:
            with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
                for thread in threads:
                    with suppress(ProcessLookupError):
                        os.sched_setaffinity(int(thread.name), {self._core})

    def begin(self) -> None:
        for _ in range(self._count):
            # in our session, so with our weight; orphaned, so that it does not count as a part of redline
            said = subprocess.run(["sh", "-c", _BUSY], stdout=subprocess.PIPE, check=True).stdout
            hog = psutil.Process(int(said))
            hog.cpu_affinity([self._core])
            self._hogs.append(hog)

    def end(self) -> None:
        for hog in self._hogs:
            with suppress(psutil.NoSuchProcess):  # told by its start from a later process of that pid
                hog.kill()
        self._hogs.clear()


class Squeezed(Plant):
    """The processes in a memory cgroup of their own, whose limit comes down to what they use: whoever needs a new page
    waits. Nothing is killed (cgroup v1 with its out-of-memory killer off for the group)."""

    def __init__(self, pids: Sequence[int], **rest: float) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self._pids = tuple(pids)
        self._group = MEMORY_V1 / f"redline-plant-{secrets.token_hex(4)}"
        self._before: dict[int, str] = {}

    @staticmethod
    def available() -> Skipped | None:
        if (MEMORY_V1 / "memory.limit_in_bytes").exists() and os.access(MEMORY_V1, os.W_OK):
            return None
        return Skipped("memory cannot be squeezed here", "root, and cgroup v1's memory controller")

    def prepare(self) -> None:
        self._group.mkdir()
        (self._group / "memory.oom_control").write_text("1")
        with suppress(OSError):  # newer kernels leave behind what they hold, and charge only what comes anew
            (self._group / "memory.move_charge_at_immigrate").write_text("3")
        for pid in self._pids:
            self._before[pid] = _memory_group(pid)
            (self._group / "cgroup.procs").write_text(str(pid))

    def begin(self) -> None:
        used = int((self._group / "memory.usage_in_bytes").read_text())
        with suppress(OSError):
            (self._group / "memory.limit_in_bytes").write_text(str(used))

    def end(self) -> None:
        with suppress(OSError):
            (self._group / "memory.limit_in_bytes").write_text("-1")

    def clean(self) -> None:
        for pid, group in self._before.items():
            with suppress(OSError):
                (MEMORY_V1 / group.lstrip("/") / "cgroup.procs").write_text(str(pid))
        for _ in range(20):
            with suppress(OSError):
                self._group.rmdir()
                return
            time.sleep(0.1)


class Stormed(Plant):
    """Writers of ours that write to `folder` and ask for it to be on the disk, all the time."""

    def __init__(self, folder: Path, writers: int = 6, block: str = "4M", **rest: float) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self._folder, self._count, self._block = folder, writers, block
        self._writers: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        for number in range(self._count):
            target = self._folder / f"storm-{number}"
            write = f"dd if=/dev/zero of={target} bs={self._block} count=16 oflag=direct,dsync conv=notrunc"
            loop = f"while :; do {write}; done"
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._writers.append(subprocess.Popen(["sh", "-c", loop], start_new_session=True, **quiet))  # type: ignore[call-overload]

    def end(self) -> None:
        for writer in self._writers:
            with suppress(ProcessLookupError):
                os.killpg(writer.pid, signal.SIGKILL)  # its own session: the shell and the dd under it
            writer.wait()
        self._writers.clear()

    def clean(self) -> None:
        for number in range(self._count):
            (self._folder / f"storm-{number}").unlink(missing_ok=True)


def alone(pids: Sequence[int]) -> None:
    """The engine, its threads and ourselves in real time: no other program gets a CPU that they want. For a short run
    that is to be quiet on a box that is not. Needs root; without it nothing happens."""
    for pid in (*pids, os.getpid()):
        with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
            for thread in threads:
                with suppress(OSError):
                    os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(1))


def calmed(pids: Sequence[int], nice: int = -15) -> Callable[[], None]:
    """Puts the engine, its threads and ourselves before other programs of a busy box, so that a plant stands out.

    What it returns gives ourselves our former weight back; the engine keeps its own to its end. Needs root; without it
    nothing happens.
    """
    us = os.getpid()
    former, group = os.getpriority(os.PRIO_PROCESS, us), _autogroup(us)
    for pid in (*pids, us):
        _weigh(pid, nice, nice)
    return lambda: _weigh(us, former, group)


def _autogroup(pid: int) -> int:
    """Between sessions the kernel weighs autogroups, not threads: the nice value of a process's own. 0 where there are
    none, and for a process that is in none: its file is there, and empty."""
    with suppress(OSError, ValueError):
        words = Path(_AUTOGROUP.format(pid=pid)).read_text().split()
        return int(words[-1]) if words else 0
    return 0


def _weigh(pid: int, nice: int, group: int) -> None:
    with suppress(OSError):
        Path(_AUTOGROUP.format(pid=pid)).write_text(str(group))
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        for thread in threads:
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


def _memory_group(pid: int) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return path
    return "/"
