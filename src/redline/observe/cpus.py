"""CPUs and what tasks wait for: /proc/stat, PSI and the load average."""

from __future__ import annotations

from redline.observe.reading import Kept, Rates, Reading

MANY_CORES = 64
_FIELDS = (("host.cpu_iowait_share", 4), ("host.cpu_irq_share", 5), ("host.cpu_softirq_share", 6))
_COUNTS = (
    ("ctxt", "host.context_switches_per_s"),
    ("processes", "host.forks_per_s"),
    ("intr", "host.interrupts_per_s"),
)
_TASKS = (("procs_running", "host.running_tasks"), ("procs_blocked", "host.blocked_tasks"))
_PRESSURES = (
    ("cpu", "some", "host.cpu_pressure_share"),
    ("memory", "some", "host.memory_pressure_share"),
    ("memory", "full", "host.memory_pressure_full_share"),
    ("io", "some", "host.io_pressure_share"),
    ("io", "full", "host.io_pressure_full_share"),
)


class Cpus:
    """Shares since the look before. On a box with many cores each core is looked at less often."""

    def __init__(self, files: Kept) -> None:
        self._files = files
        self._rates = Rates()
        self._times: dict[str, list[int]] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self.cores = 0

    def read(self, into: Reading, *, cores: bool = True) -> None:
        self._stat(into, cores)
        for kind in ("cpu", "memory", "io"):
            self._pressure(into, kind)

    def load(self, into: Reading) -> None:
        if average := self._files.read("loadavg").split(" ", 1)[0]:
            into.put("host.loadavg", float(average))

    def _stat(self, into: Reading, cores: bool) -> None:
        counts: dict[str, str] = {}
        self.cores = 0
        for line in self._files.read("stat").splitlines():
            name, _, rest = line.partition(" ")
            if name == "cpu":
                self._all(into, [int(value) for value in rest.split()[:8]])
            elif name.startswith("cpu"):
                self.cores += 1
                if cores:
                    self._core(into, name[3:], rest)
            else:
                counts[name] = rest.partition(" ")[0]  # the first number of `intr` is the sum of all the others
        for name, rate in _COUNTS:
            if name in counts:
                into.put(rate, self._rates.per_s(name, into.t_ns, int(counts[name])))
        for name, gauge in _TASKS:
            if name in counts:
                into.put(gauge, int(counts[name]))

    def _all(self, into: Reading, now: list[int]) -> None:
        before, self._times["cpu"] = self._times.get("cpu"), now
        if before is None or (total := sum(now) - sum(before)) <= 0:
            return
        moved = [max(after - earlier, 0) for after, earlier in zip(now, before, strict=True)]
        into.put("host.cpu_busy_share", max(0.0, 1 - (moved[3] + moved[4]) / total))
        for name, place in _FIELDS:
            into.put(name, moved[place] / total)
        if len(moved) > 7:
            into.put("host.cpu_steal_share", moved[7] / total)

    def _core(self, into: Reading, core: str, rest: str) -> None:
        words = rest.split(None, 8)[:8]
        idle = int(words[3]) + int(words[4])
        now = [sum(map(int, words)), idle]
        before, self._times[core] = self._times.get(core), now
        if before is None or now[0] <= before[0]:
            return
        busy = 1 - (now[1] - before[1]) / (now[0] - before[0])
        labels = self._labels.setdefault(core, {"cpu": core})
        into.put("host.cpu_core_busy_share", min(max(busy, 0.0), 1.0), labels)

    def _pressure(self, into: Reading, kind: str) -> None:
        content = self._files.read(f"pressure/{kind}")
        if not content:
            return
        totals = {line[:4]: int(line.rpartition("total=")[2]) for line in content.splitlines() if "total=" in line}
        for of, which, name in _PRESSURES:
            if of == kind and which in totals:
                share = self._rates.per_s((kind, which), into.t_ns, totals[which], 1e-6)
                into.put(name, None if share is None else min(share, 1.0))
