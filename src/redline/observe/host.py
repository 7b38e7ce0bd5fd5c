"""Samples of the engine's processes, of the box, and of ourselves.

engine.rss_bytes               resident memory, summed; shared pages count once per process
engine.pss_bytes               resident memory with shared pages counted once; taken less often, it costs more
engine.rss_high_water_bytes    sum of each process's highest resident memory since it started (start-up included)
engine.cpu_s  engine.cpu_cores CPU time so far; cores in use since the sample before
engine.processes  engine.threads
host.cpu_busy_share  host.cpu_steal_share  host.cpu_pressure_share
host.memory_available_bytes  host.loadavg
client.cpu_s  client.cpu_cores  client.rss_bytes     the load generator's own process
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from redline.clock import now_ns
from redline.observe.proc import Tree, high_water, read, rollup, usage
from redline.observe.sample import Sample

COSTLY_EVERY_S = 1.0
COSTLY_DUTY = 0.01  # page-table walks take at most this share of the time, also when one takes long


class HostSampler:
    """Call `read` at every tick."""

    name = "host"

    def __init__(self, pids: Sequence[int]) -> None:
        self._tree = Tree(tuple(pids))
        self._me = os.getpid()
        self._stat = _cpu_times()
        self._pressure = _pressure_us()
        self._costly_at = 0.0
        self._rates: dict[str, tuple[int, float]] = {}

    def read(self) -> list[Sample]:
        t_ns = now_ns()
        return [*self._engine(t_ns), *self._host(t_ns), *self._client(t_ns)]

    def close(self) -> None:
        """Nothing is held open."""

    def _engine(self, t_ns: int) -> list[Sample]:
        if not self._tree.roots:
            return []
        members = self._tree.look()
        if not members:
            return []
        samples = [
            Sample(t_ns, "engine.rss_bytes", float(sum(one.rss_bytes for one in members.values())), "B"),
            Sample(t_ns, "engine.processes", float(len(members)), ""),
            Sample(t_ns, "engine.threads", float(sum(one.threads for one in members.values())), ""),
            Sample(t_ns, "engine.cpu_s", self._tree.cpu_s, "s"),
        ]
        samples += self._rate(t_ns, "engine.cpu_cores", self._tree.cpu_s)
        if time.monotonic() >= self._costly_at:
            samples += self._costly(t_ns, list(members))
        return samples

    def _costly(self, t_ns: int, pids: list[int]) -> list[Sample]:
        began = time.monotonic()
        proportional, highest = [rollup(pid) for pid in pids], [high_water(pid) for pid in pids]
        ended = time.monotonic()
        self._costly_at = began + max(COSTLY_EVERY_S, (ended - began) / COSTLY_DUTY)
        samples = []
        for name, values in (("engine.pss_bytes", proportional), ("engine.rss_high_water_bytes", highest)):
            # one process that cannot be read would make the sum a lie
            if None not in values:
                samples.append(Sample(t_ns, name, float(sum(value or 0 for value in values)), "B"))
        return samples

    def _host(self, t_ns: int) -> list[Sample]:
        samples = []
        before, self._stat = self._stat, _cpu_times()
        if before and self._stat and (total := sum(self._stat) - sum(before)) > 0:
            moved = [after - earlier for after, earlier in zip(self._stat, before, strict=True)]
            idle, steal = moved[3] + moved[4], moved[7] if len(moved) > 7 else 0
            samples.append(Sample(t_ns, "host.cpu_busy_share", 1 - idle / total, "share"))
            samples.append(Sample(t_ns, "host.cpu_steal_share", steal / total, "share"))
        waited_us = _pressure_us()
        if waited_us is not None and self._pressure is not None:
            (before_ns, before_us), self._pressure = self._pressure, (t_ns, waited_us[1])
            if t_ns > before_ns:
                share = (waited_us[1] - before_us) * 1000 / (t_ns - before_ns)
                samples.append(Sample(t_ns, "host.cpu_pressure_share", min(1.0, share), "share"))
        available = next((line for line in read("/proc/meminfo").splitlines() if line.startswith("MemAvailable")), "")
        if available:
            samples.append(Sample(t_ns, "host.memory_available_bytes", int(available.split()[1]) * 1024.0, "B"))
        if average := read("/proc/loadavg").split():
            samples.append(Sample(t_ns, "host.loadavg", float(average[0]), ""))
        return samples

    def _client(self, t_ns: int) -> list[Sample]:
        cpu_s = time.process_time()
        samples = [Sample(t_ns, "client.cpu_s", cpu_s, "s"), *self._rate(t_ns, "client.cpu_cores", cpu_s)]
        if me := usage(self._me):
            samples.append(Sample(t_ns, "client.rss_bytes", float(me.rss_bytes), "B"))
        return samples

    def _rate(self, t_ns: int, name: str, cpu_s: float) -> list[Sample]:
        """Cores in use since the tick before."""
        before = self._rates.get(name)
        self._rates[name] = (t_ns, cpu_s)
        if before is None or t_ns <= before[0]:
            return []
        return [Sample(t_ns, name, (cpu_s - before[1]) * 1e9 / (t_ns - before[0]), "cores")]


def _cpu_times() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all CPUs, in ticks."""
    first = read("/proc/stat").partition("\n")[0].split()
    return [int(value) for value in first[1:9]]


def _pressure_us() -> tuple[int, int] | None:
    """(now in ns, microseconds so far in which some task waited for a CPU)."""
    line = read("/proc/pressure/cpu").partition("\n")[0]
    _, found, total = line.partition("total=")
    return (now_ns(), int(total)) if found else None
