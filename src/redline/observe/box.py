"""Did the box stay as it was during a load point: clocks, governor, swap, steal, and who else used the CPUs.

Read before and after, and in between for what comes and goes (the governor). Everything comes from /proc and /sys below
`root`; what this box does not tell is left out, never guessed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from redline.node.cgroup import throttled_s
from redline.node.tree import cpu_list, fields, number, text
from redline.observe.proc import Tree

_EVERY_S = 1.0
_CPU = "sys/devices/system/cpu"
_TICKS = 100.0  # USER_HZ, which /proc reports in on every Linux


@dataclass(frozen=True)
class Reading:
    """The box at one instant; counters since boot. None and empty where the box does not tell."""

    at_s: float
    busy_s: float | None
    steal_s: float | None
    swapped_pages: int | None
    heat_events: int | None
    quota_throttled_s: float | None


@dataclass
class BoxWatch:
    """Watches from `with` to the end of it. `pids` are the engine's; with none, who used the CPUs is not judged."""

    pids: Sequence[int] = ()
    root: Path = Path("/")
    governors: set[str] = field(default_factory=set)
    _first: Reading | None = None
    _last: Reading | None = None

    def __enter__(self) -> BoxWatch:
        self._tree = Tree(tuple(self.pids))
        self._engine_s, self._own_s = self._engine_cpu_s(), _own_cpu_s()
        self._before = set(governors(self.root))
        self.governors |= self._before
        self._first = read(self.root)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="redline-box", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(5)
        self._last = read(self.root)
        self.governors |= set(governors(self.root))
        self._engine_s = self._engine_cpu_s() - self._engine_s
        self._own_s = _own_cpu_s() - self._own_s

    def _look(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.governors |= set(governors(self.root))
            self._engine_cpu_s()  # a worker that ends takes its CPU time along unless somebody looked

    def _engine_cpu_s(self) -> float:
        if not self._tree.roots:
            return 0.0
        self._tree.look()
        return self._tree.cpu_s

    def as_dict(self, client_cpu_s: float = 0.0) -> dict[str, Any]:
        """What changed. `client_cpu_s` is what the load workers used: neither the engine's nor a stranger's."""
        first, last = self._first, self._last
        if first is None or last is None:
            return {}
        seconds = max(last.at_s - first.at_s, 1e-9)
        said: dict[str, Any] = {
            "governors": sorted(self.governors),
            "governor_changed": self.governors != self._before,
            "cores": len(cpu_list(text(self.root, f"{_CPU}/online"))) or None,
            "swapped_pages": _moved(first.swapped_pages, last.swapped_pages),
            "heat_events": _moved(first.heat_events, last.heat_events),
            "quota_throttled_s": _moved(first.quota_throttled_s, last.quota_throttled_s),
            "steal_cores": _moved(first.steal_s, last.steal_s, seconds),
        }
        busy = _moved(first.busy_s, last.busy_s)
        if busy is not None and self.pids:
            said["others_cores"] = max(busy - self._engine_s - self._own_s - client_cpu_s, 0.0) / seconds
        return said


def read(root: Path) -> Reading:
    stat = (text(root, "proc/stat") or "").partition("\n")[0].split()[1:9]
    times = [int(value) for value in stat]
    vm = fields((text(root, "proc/vmstat") or "").replace(" ", ":"))
    swapped = [int(vm[name]) for name in ("pswpin", "pswpout") if vm.get(name, "").isdigit()]
    heat = [
        count
        for path in sorted(root.glob(f"{_CPU}/cpu[0-9]*/thermal_throttle/*_throttle_count"))
        if (count := number(root, str(path.relative_to(root)))) is not None
    ]
    return Reading(
        at_s=time.monotonic(),
        busy_s=(sum(times[:3]) + sum(times[5:7])) / _TICKS if len(times) > 6 else None,
        steal_s=times[7] / _TICKS if len(times) > 7 else None,
        swapped_pages=sum(swapped) if swapped else None,
        heat_events=sum(heat) if heat else None,
        quota_throttled_s=throttled_s(root),
    )


def governors(root: Path) -> list[str]:
    """The cpufreq governor of each CPU that has one."""
    found = (
        text(root, str(path.relative_to(root))) for path in root.glob(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor")
    )
    return [one for one in found if one]


def _moved(before: float | None, after: float | None, per: float = 1.0) -> float | None:
    return None if before is None or after is None else (after - before) / per


def _own_cpu_s() -> float:
    """Of redline itself, which parses and stores while the workers load."""
    return time.process_time()
