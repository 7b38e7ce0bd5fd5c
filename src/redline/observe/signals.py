"""What a setting of the box works through, read before and after a round: queues, reclaim, remote pages, overflows.

Counters become rates per second (or shares of the time), gauges are their mean over both ends. What this box does not
tell is left out, never guessed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from redline.node.residency import resident_bytes
from redline.node.sys import Sys, text
from redline.node.tree import cpu_list, fields
from redline.observe.proc import Tree

Kind = Literal["rate", "gauge", "first"]
"""first: as it was at the beginning, since the round itself changes it."""


@dataclass(frozen=True)
class Signal:
    """`unit` is that of what is shown: of a rate, per second of the round."""

    name: str
    title: str
    unit: str
    kind: Kind = "rate"


SIGNALS: tuple[Signal, ...] = (
    Signal("run_queue_ms", "run-queue delay of the engine's threads", "ms/s"),
    Signal("context_switches", "context switches of the engine's threads", "1/s"),
    Signal("remote_pages", "engine's pages on other nodes than its CPUs", "%", "gauge"),
    Signal("switches", "context switches of the box", "1/s"),
    Signal("interrupts", "interrupts", "1/s"),
    Signal("softirq_share", "CPU time in soft interrupts", "%"),
    Signal("time_squeeze", "receive loop out of budget", "1/s"),
    Signal("softnet_dropped", "packets dropped before the stack", "1/s"),
    Signal("listen_overflows", "full accept queues", "1/s"),
    Signal("listen_drops", "connections dropped by listeners", "1/s"),
    Signal("compact_stall", "stalls for compaction", "1/s"),
    Signal("compact_daemon_wake", "wake-ups of the compaction thread", "1/s"),
    Signal("allocstall", "direct reclaims", "1/s"),
    Signal("thp_faults", "faults that got a huge page", "1/s"),
    Signal("thp_fallbacks", "faults that got none", "1/s"),
    Signal("numa_pages_migrated", "pages moved between nodes", "1/s"),
    Signal("pswpin", "pages swapped in", "1/s"),
    Signal("pswpout", "pages swapped out", "1/s"),
    Signal("major_faults", "page faults that read a disk", "1/s"),
    Signal("dirty_kib", "dirty pages", "KiB", "gauge"),
    Signal("free_hugepages", "free huge pages", "pages", "gauge"),
    Signal("nr_throttled", "times the CPU quota was used up", "1/s"),
    Signal("psi", "share of the time in which something waited for a CPU", "%"),
    Signal("cpu_mhz", "CPU clock", "MHz", "gauge"),
    Signal("resident_share", "model files in the page cache", "%", "first"),
)
BY_NAME = {signal.name: signal for signal in SIGNALS}
_VMSTAT = {
    "compact_stall": ("compact_stall",),
    "compact_daemon_wake": ("compact_daemon_wake",),
    "thp_faults": ("thp_fault_alloc",),
    "thp_fallbacks": ("thp_fault_fallback",),
    "numa_pages_migrated": ("numa_pages_migrated",),
    "pswpin": ("pswpin",),
    "pswpout": ("pswpout",),
    "major_faults": ("pgmajfault",),
}
_NUMA = re.compile(r"\bN(\d+)=(\d+)")


@dataclass(frozen=True)
class Reading:
    """The box at one instant. `threads`: run-queue ns and context switches of each thread of the engine."""

    at_s: float
    values: dict[str, float]
    threads: dict[int, tuple[float, float]] = field(default_factory=dict)


def read(sys: Sys, pids: Collection[int] = (), files: Collection[Path] = ()) -> Reading:
    """`pids` are the engine's processes, all of them; `files` the model's."""
    found: dict[str, float | None] = {
        **_vmstat(sys),
        **_stat(sys),
        **_softnet(sys),
        **_tcp(sys, pids),
        "free_hugepages": _number(fields(text(sys, "/proc/meminfo")).get("HugePages_Free")),
        "nr_throttled": _throttled(sys),
        "psi": _psi(sys),
        "cpu_mhz": _mean_mhz(sys),
        "remote_pages": remote_share(sys, pids),
        "resident_share": _resident(files),
    }
    threads = {thread: both for pid in pids for thread, both in _threads(sys, pid)}
    return Reading(time.monotonic(), {name: value for name, value in found.items() if value is not None}, threads)


def moved(before: Reading, after: Reading) -> dict[str, float]:
    """By signal, in its unit."""
    seconds = max(after.at_s - before.at_s, 1e-6)
    result = {}
    for name in before.values.keys() & after.values.keys():
        first, last = before.values[name], after.values[name]
        kinds = {"rate": (last - first) / seconds, "gauge": (first + last) / 2, "first": first}
        result[name] = kinds[BY_NAME[name].kind]
    if after.threads:
        # a thread that ended in between took its counts along; one that is new counts from nothing
        pairs = [(before.threads.get(thread, (0.0, 0.0)), now) for thread, now in after.threads.items()]
        result["run_queue_ms"] = sum(now[0] - was[0] for was, now in pairs) / 1e6 / seconds
        result["context_switches"] = sum(now[1] - was[1] for was, now in pairs) / seconds
    return dict(sorted(result.items()))


@dataclass
class SignalWatch:
    """Reads at the beginning and at the end of a `with`. `roots` are the engine's first processes."""

    sys: Sys
    roots: Collection[int] = ()
    files: Collection[Path] = ()
    found: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> SignalWatch:
        self._tree = Tree(tuple(self.roots))
        self._before = self._read()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.found.update(moved(self._before, self._read()))

    def _read(self) -> Reading:
        return read(self.sys, tuple(self._tree.look()) if self._tree.roots else (), self.files)


def remote_share(sys: Sys, pids: Iterable[int]) -> float | None:
    """Percent of the pages of `pids` that lie on nodes none of whose CPUs the process may use."""
    remote = total = 0
    for pid in pids:
        mine = _nodes_of(sys, pid)
        for node, pages in _NUMA.findall(text(sys, f"/proc/{pid}/numa_maps") or ""):
            total += int(pages)
            remote += int(pages) if mine and int(node) not in mine else 0
    return 100 * remote / total if total else None


def listener_pids(port: int) -> tuple[int, ...]:
    """Processes of this box that listen on `port`; () when there is none, or when it may not be known."""
    import psutil

    try:
        found = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return ()
    listening = {one.pid for one in found if one.status == "LISTEN" and one.laddr and one.laddr.port == port}
    return tuple(sorted(pid for pid in listening if pid))


def _nodes_of(sys: Sys, pid: int) -> set[int]:
    allowed = set(cpu_list(fields(text(sys, f"/proc/{pid}/status")).get("Cpus_allowed_list")))
    nodes = sys.glob("/sys/devices/system/node/node[0-9]*")
    return {int(node.rpartition("node")[2]) for node in nodes if allowed & set(cpu_list(text(sys, f"{node}/cpulist")))}


def _threads(sys: Sys, pid: int) -> Iterable[tuple[int, tuple[float, float]]]:
    for task in sys.names(f"/proc/{pid}/task"):
        schedule = (text(sys, f"/proc/{pid}/task/{task}/schedstat") or "").split()
        status = fields(text(sys, f"/proc/{pid}/task/{task}/status"))
        if len(schedule) > 1:
            switches = (_number(status.get(f"{kind}_ctxt_switches")) for kind in ("voluntary", "nonvoluntary"))
            yield int(task), (float(schedule[1]), sum(count or 0.0 for count in switches))


def _vmstat(sys: Sys) -> Mapping[str, float | None]:
    lines = (text(sys, "/proc/vmstat") or "").splitlines()
    counts = {name: float(value) for name, _, value in (line.partition(" ") for line in lines) if value.isdigit()}
    found: dict[str, float | None] = {
        name: sum(counts[one] for one in names) if all(one in counts for one in names) else None
        for name, names in _VMSTAT.items()
    }
    stalls = [value for name, value in counts.items() if name.startswith("allocstall")]
    found["allocstall"] = sum(stalls) if stalls else None
    found["dirty_kib"] = counts["nr_dirty"] * 4 if "nr_dirty" in counts else None
    return found


def _stat(sys: Sys) -> Mapping[str, float | None]:
    """The soft interrupts' share is a sum over CPUs of percents of a second, divided by their number."""
    lines = [line.split() for line in (text(sys, "/proc/stat") or "").splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    cpus = sum(name.startswith("cpu") and name != "cpu" for name in rows) or 1
    cpu = rows.get("cpu", [])
    return {
        "switches": _number(rows.get("ctxt", [""])[0]),
        "interrupts": _number(rows.get("intr", [""])[0]),
        "softirq_share": float(cpu[6]) / cpus if len(cpu) > 6 else None,  # USER_HZ is 100: ticks are percents
    }


def _softnet(sys: Sys) -> Mapping[str, float | None]:
    rows = [line.split() for line in (text(sys, "/proc/net/softnet_stat") or "").splitlines()]
    columns = {"softnet_dropped": 1, "time_squeeze": 2}
    return {name: sum(int(row[at], 16) for row in rows) if rows else None for name, at in columns.items()}


def _tcp(sys: Sys, pids: Collection[int]) -> Mapping[str, float | None]:
    """Of the engine's own network namespace, where it has one."""
    places = [*[f"/proc/{pid}/net/netstat" for pid in pids][:1], "/proc/net/netstat"]
    content = next((found for place in places if (found := text(sys, place))), "")
    heads, counts = ([line.split()[1:] for line in content.splitlines() if line.startswith("TcpExt:")] + [[], []])[:2]
    known = dict(zip(heads, counts, strict=False))
    return {
        "listen_overflows": _number(known.get("ListenOverflows")),
        "listen_drops": _number(known.get("ListenDrops")),
    }


def _throttled(sys: Sys) -> float | None:
    for path in ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat"):
        for line in (text(sys, path) or "").splitlines():
            if line.startswith("nr_throttled "):
                return _number(line.split()[1])
    return None


def _psi(sys: Sys) -> float | None:
    """Microseconds as percents of a second."""
    found = re.search(r"^some .*total=(\d+)", text(sys, "/proc/pressure/cpu") or "", re.MULTILINE)
    return int(found[1]) / 1e4 if found else None


def _mean_mhz(sys: Sys) -> float | None:
    paths = sys.glob("/sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq")
    clocks = [value for path in paths if (value := _number(text(sys, path))) is not None]
    return sum(clocks) / len(clocks) / 1000 if clocks else None


def _resident(files: Collection[Path]) -> float | None:
    """Percent of the bytes of `files`; None when nobody tells of one of them."""
    total = there = 0
    for path in files:
        try:
            size, found = path.stat().st_size, resident_bytes(path)
        except OSError:
            return None
        if found is None:
            return None
        total, there = total + size, there + found
    return 100 * there / total if total else None


def _number(word: str | None) -> float | None:
    try:
        return float((word or "").split()[0])
    except (IndexError, ValueError):
        return None
