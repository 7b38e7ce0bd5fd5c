"""The engine's processes: memory, CPU, page faults, and how long its threads were ready and had no CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress

from redline.observe.proc import Tree, Usage, high_water, read, rollup
from redline.observe.reading import Kept, Rates, Reading

COSTLY_EVERY_S = 1.0
COSTLY_DUTY = 0.01  # page-table walks take at most this share of the time, also when one takes long
SCAN_EVERY_S = 1.0
MAX_ACTIVE = 128


class EngineTree:
    """Nothing for a server of somebody else, and nothing rather than zero for one that is gone."""

    def __init__(self, pids: Sequence[int], files: Kept) -> None:
        self.tree = Tree(tuple(pids))
        self._rates = Rates()
        self._queue = RunQueue(files)
        self._costly_at = 0.0
        self._ended = (0, 0)
        self._before: dict[int, Usage] = {}

    def read(self, into: Reading) -> None:
        if not self.tree.roots:
            return
        members = self.tree.look()
        if not members:
            return
        into.put("engine.rss_bytes", sum(one.rss_bytes for one in members.values()))
        into.put("engine.processes", len(members))
        into.put("engine.threads", sum(one.threads for one in members.values()))
        into.put("engine.cpu_s", self.tree.cpu_s)
        into.put("engine.cpu_cores", self._rates.per_s("cpu", into.t_ns, self.tree.cpu_s))
        self._faults(into, members)
        self._queue.read(into, members)
        if time.monotonic() >= self._costly_at:
            self._costly(into, list(members))

    def _faults(self, into: Reading, members: dict[int, Usage]) -> None:
        gone = [self._before[pid] for pid in self._before.keys() - members.keys()]
        self._ended = (
            self._ended[0] + sum(one.faults for one in gone),
            self._ended[1] + sum(one.major_faults for one in gone),
        )
        self._before = dict(members)
        faults = self._ended[0] + sum(one.faults for one in members.values())
        major = self._ended[1] + sum(one.major_faults for one in members.values())
        into.put("engine.faults_per_s", self._rates.per_s("faults", into.t_ns, faults))
        into.put("engine.major_faults_per_s", self._rates.per_s("major", into.t_ns, major))

    def _costly(self, into: Reading, pids: list[int]) -> None:
        began = time.monotonic()
        proportional, highest = [rollup(pid) for pid in pids], [high_water(pid) for pid in pids]
        ended = time.monotonic()
        self._costly_at = began + max(COSTLY_EVERY_S, (ended - began) / COSTLY_DUTY)
        for name, values in (("engine.pss_bytes", proportional), ("engine.rss_high_water_bytes", highest)):
            # one process that cannot be read would make the sum a lie
            if None not in values:
                into.put(name, sum(value or 0 for value in values))


class RunQueue:
    """From the kernel's account of every thread (schedstat). All threads once a second, those that ran at every tick:
    one that sleeps is never ready."""

    def __init__(self, files: Kept) -> None:
        self._files = files
        self._known: dict[str, tuple[int, int, int]] = {}
        self._active: list[str] = []
        self._scan_at = 0.0

    @property
    def active(self) -> list[str]:
        """Of the threads that ran lately, the busiest first: `PID/task/TID/schedstat` below /proc."""
        return self._active

    def read(self, into: Reading, members: dict[int, Usage]) -> None:
        scanning = time.monotonic() >= self._scan_at
        paths = self._scan(members) if scanning else self._active
        rates = [rate for path in paths if (rate := self._thread(path, into.t_ns, kept=not scanning)) is not None]
        if rates:
            into.put("engine.run_queue_ms_per_s", sum(rates))
            into.put("engine.run_queue_max_ms_per_s", max(rates))

    def _scan(self, members: dict[int, Usage]) -> list[str]:
        self._scan_at = time.monotonic() + SCAN_EVERY_S
        paths = []
        for pid in members:
            with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
                paths += [f"{pid}/task/{thread.name}/schedstat" for thread in threads]
        before = {path: one[1] for path, one in self._known.items()}
        self._known = {path: self._known[path] for path in paths if path in self._known}
        ran = {path: self._ran(path) for path in paths}
        active = sorted((path for path in paths if ran[path] > before.get(path, -1)), key=lambda path: -ran[path])
        for path in set(self._active) - set(active[:MAX_ACTIVE]):
            self._files.forget(path)
        self._active = active[:MAX_ACTIVE]
        return paths

    def _ran(self, path: str) -> int:
        words = read(f"/proc/{path}").split(None, 1)
        return int(words[0]) if words else -1

    def _thread(self, path: str, t_ns: int, kept: bool) -> float | None:
        """Milliseconds per second since this thread was looked at."""
        words = (self._files.read(path) if kept else read(f"/proc/{path}")).split()
        if len(words) < 2:
            return None
        now = (t_ns, int(words[0]), int(words[1]))
        before, self._known[path] = self._known.get(path), now
        if before is None or t_ns <= before[0]:
            return None
        return max(now[2] - before[2], 0) * 1e3 / (t_ns - before[0])
