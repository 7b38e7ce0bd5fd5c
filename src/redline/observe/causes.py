"""What can hold up an engine, looked at often: the state of its processes, who waits for what, what TCP lost.

The names are in `redline.sampled`. At 25 Hz or better, a tick reads about ten small files of /proc and /sys.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from redline.node.tree import text
from redline.observe.cpus import _PRESSURES
from redline.observe.engine_tree import RunQueue
from redline.observe.proc import Tree, read
from redline.observe.reading import Kept, Rates, Reading
from redline.observe.sample import Sample

LOOK_EVERY_S = 1.0
_MAJOR = 9
"""Place of the major faults in /proc/PID/stat behind the name of the process."""
_WAITS = {"frozen": ("refrigerator", "freeze"), "memory": ("mem_cgroup", "oom", "reclaim", "throttle_direct")}
_LOOKED_AT = 8
"""Threads of the engine, busiest first, whose state is looked at."""
_TCP = {"RetransSegs": "retransmits", "TCPOFOQueue": "out_of_order"}


class CauseSampler:
    """Call `read` at every tick. `pids` are the engine's, `client` is redline's own process."""

    name = "causes"

    def __init__(self, pids: Sequence[int], client: int | None = None) -> None:
        self._files, self._rates = Kept(), Rates()
        self._tree, self._own = Tree(tuple(pids)), Tree((client or os.getpid(),))
        self._queue, self._client_queue = RunQueue(self._files), RunQueue(self._files)
        self._look_at = 0.0
        self._cores: dict[str, tuple[int, int, int]] = {}
        self._group: tuple[Path | None, Path | None] = (None, None)
        self.notes: list[str] = []

    def read(self) -> list[Sample]:
        into = Reading()
        self._look()
        if self._tree.members:
            self._engine(into)
        self._waiting(into, self._client_queue, self._own, "cause.client_run_queue_share")
        self._cpus(into)
        self._pressures(into)
        self._memory(into)
        self._network(into)
        return into.samples

    def close(self) -> None:
        self._files.close()

    def _look(self) -> None:
        """Which processes there are, once a second."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_EVERY_S
        if self._tree.roots:
            self._tree.look()
            self._group = groups_of(next(iter(self._tree.members), 0))
        others = frozenset({*self._tree.roots, *self._tree.members, os.getpid()} - set(self._own.roots))
        self._own = replace(self._own, without=others)
        self._own.look()

    def _engine(self, into: Reading) -> None:
        """A process that is stopped, or stuck in the kernel, gives nothing back: the share of them at this instant."""
        major = held = counted = 0
        for pid in self._tree.members:
            words = self._stat(str(pid))
            if len(words) <= _MAJOR:
                continue
            counted += 1
            held += words[0] in "Tt"
            major += int(words[_MAJOR])
        busiest = [path.removesuffix("/schedstat") for path in self._queue.active[:_LOOKED_AT]]
        stuck = {self._why(place) for place in busiest if self._stat(place)[:1] == ["D"]}
        if counted:
            into.put("cause.stopped_share", 1.0 if "frozen" in stuck else held / counted)
            into.put("cause.stuck_memory_share", float("memory" in stuck))
            into.put("cause.stuck_disk_share", float("disk" in stuck))
            into.put("cause.major_faults_per_s", self._rates.per_s("major", into.t_ns, major))
        self._waiting(into, self._queue, self._tree, "cause.run_queue_share")
        quota, limit = self._group
        if quota is not None:
            throttled = self._rates.per_s("throttled", into.t_ns, throttled_s(quota))
            # the kernel adds up the CPUs that the group may not use meanwhile
            into.put("cause.throttled_share", None if throttled is None else min(throttled, 1.0))
        if limit is not None:
            into.put("cause.memory_limit_hits_per_s", self._rates.per_s("limit", into.t_ns, limit_hits(limit)))

    def _why(self, place: str) -> str:
        """What a thread that cannot be woken waits for, by the kernel's function that it sleeps in."""
        where = self._files.read(f"{place}/wchan")
        return next((why for why, words in _WAITS.items() if any(word in where for word in words)), "disk")

    def _stat(self, place: str) -> list[str]:
        return self._files.read(f"{place}/stat").rpartition(")")[2].split()

    def _waiting(self, into: Reading, queue: RunQueue, tree: Tree, name: str) -> None:
        """Of the thread that waited most, as a share of the time."""
        found = Reading(into.t_ns)
        queue.read(found, tree.members)
        most = next((one.value for one in found.samples if one.name == "engine.run_queue_max_ms_per_s"), None)
        into.put(name, None if most is None else min(most / 1000, 1.0))

    def _cpus(self, into: Reading) -> None:
        worst = None
        for line in self._files.read("stat").splitlines():
            if not line.startswith("cpu"):
                break
            words = line.split(None, 9)
            name, values = words[0], [int(value) for value in words[1:9]]
            now = (sum(values), values[5] + values[6], values[7])
            before, self._cores[name] = self._cores.get(name), now
            if before is None or now[0] <= before[0]:
                continue
            total = now[0] - before[0]
            if name == "cpu":
                into.put("cause.steal_share", max(now[2] - before[2], 0) / total)
            else:
                worst = max(worst or 0.0, max(now[1] - before[1], 0) / total)
        into.put("cause.irq_max_share", worst)

    def _pressures(self, into: Reading) -> None:
        for kind, which, name in _PRESSURES:
            if which == "some":
                total = self._files.read(f"pressure/{kind}").partition("\n")[0].rpartition("total=")[2]
                share = self._rates.per_s(kind, into.t_ns, int(total), 1e-6) if total.isdigit() else None
                into.put(name.replace("host.", "cause."), None if share is None else min(share, 1.0))

    def _memory(self, into: Reading) -> None:
        reclaims = compactions = None
        for line in self._files.read("vmstat").splitlines():
            if line.startswith("allocstall"):
                reclaims = (reclaims or 0) + int(line.rpartition(" ")[2])
            elif line.startswith("compact_stall"):
                compactions = int(line.rpartition(" ")[2])
        into.put("cause.direct_reclaims_per_s", self._rates.per_s("reclaim", into.t_ns, reclaims))
        into.put("cause.compaction_stalls_per_s", self._rates.per_s("compaction", into.t_ns, compactions))

    def _network(self, into: Reading) -> None:
        """TCP of the namespace that the engine is in, and of ours where that is another."""
        pids = [next(iter(self._tree.members), os.getpid()), os.getpid()]
        spaces = {_namespace(pid): pid for pid in pids}
        for name, told in _TCP.items():
            counts = [tcp_count(self._files, pid, name) for pid in spaces.values()]
            known = [count for count in counts if count is not None]
            rate = self._rates.per_s(name, into.t_ns, sum(known) if known else None)
            into.put(f"cause.tcp_{told}_per_s", rate)


def tcp_count(files: Kept, pid: int, name: str) -> int | None:
    """A counter of /proc/PID/net/snmp or netstat: a line of names, then a line of values."""
    for file in ("snmp", "netstat"):
        lines = files.read(f"{pid}/net/{file}").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            if name in (words := names.split()):
                return int(values.split()[words.index(name)])
    return None


def groups_of(pid: int, root: Path = Path("/sys/fs/cgroup"), proc: str = "/proc") -> tuple[Path | None, Path | None]:
    """Folders of the process's cgroup that tell of its CPU quota and of its memory limit; v2, or v1's two."""
    cpu = memory = None
    for line in read(f"{proc}/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        places = [root / name / path.lstrip("/") for name in (controllers, *names) if name]
        if not controllers:
            places = [root / path.lstrip("/"), root / "unified" / path.lstrip("/")]
        for place in places:
            if ("cpu" in names or not controllers) and (place / "cpu.stat").exists() and cpu is None:
                cpu = place
            if any((place / name).exists() for name in ("memory.failcnt", "memory.events")) and memory is None:
                memory = place
    return cpu, memory


def throttled_s(group: Path) -> float | None:
    for line in (text(group, "cpu.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == "throttled_usec":
            return int(value) / 1e6
        if name == "throttled_time":
            return int(value) / 1e9
    return None


def limit_hits(group: Path) -> int | None:
    """How often the group ran into its memory limit."""
    if (count := text(group, "memory.failcnt")) is not None:
        return int(count)
    told = dict(line.split(" ", 1) for line in (text(group, "memory.events") or "").splitlines() if " " in line)
    return sum(int(told.get(name, 0)) for name in ("high", "max")) if told else None


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""
