"""Samples of the host, of the engine's processes, and of redline itself; the names are in `redline.sampled`.

What changes within a tick (CPUs, pressure, the engine) is read at every tick, the rest twice a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from redline.observe.cpus import MANY_CORES, Cpus
from redline.observe.devices import Devices
from redline.observe.engine_tree import EngineTree
from redline.observe.memory import Memory
from redline.observe.proc import Tree, has_children_file, usage
from redline.observe.reading import Kept, Rates, Reading
from redline.observe.sample import Sample

SLOW_EVERY_S = 0.5
STEP_S = 0.1


class HostSampler:
    """Call `read` at every tick. `client` is redline's own process."""

    name = "host"

    def __init__(self, pids: Sequence[int], client: int | None = None) -> None:
        self._files = Kept()
        self._cpus = Cpus(self._files)
        self._memory, self._devices = Memory(self._files), Devices(self._files)
        self._engine = EngineTree(pids, self._files)
        self._client = client or os.getpid()
        self._redline = Tree((self._client,))
        self._rates = Rates()
        self._slow_at = 0.0
        self._offset_s: float | None = None
        self.notes: list[str] = []
        if not has_children_file():
            self.notes.append(
                "this kernel does not list child processes: memory and CPU of an engine's workers are missing"
            )

    def read(self) -> list[Sample]:
        into = Reading()
        slow = time.monotonic() >= self._slow_at
        self._engine.read(into)
        self._cpus.read(into, cores=slow or self._cpus.cores <= MANY_CORES)
        if slow:
            self._slow_at = time.monotonic() + SLOW_EVERY_S
            self._cpus.load(into)
            self._memory.read(into)
            self._devices.read(into)
            self._wall(into)
            self._own(into)
        return into.samples

    def close(self) -> None:
        self._files.close()

    def _wall(self, into: Reading) -> None:
        offset_s = time.time() - time.monotonic()
        if self._offset_s is not None and abs(offset_s - self._offset_s) > STEP_S:
            self.notes.append(
                f"the wall clock was stepped by {offset_s - self._offset_s:+.3f} s: times in logs before and after do "
                "not fit together (redline's own are monotonic)"
            )
        self._offset_s = offset_s
        into.put("host.wall_offset_s", offset_s)

    def _own(self, into: Reading) -> None:
        """Redline and its load workers, without the engine that it started and without the samplers."""
        others = frozenset({*self._engine.tree.roots, *self._engine.tree.members, os.getpid()} - {self._client})
        self._redline = replace(self._redline, without=others)
        self._redline.look()
        into.put("client.cpu_s", self._redline.cpu_s)
        into.put("client.cpu_cores", self._rates.per_s("client", into.t_ns, self._redline.cpu_s))
        if me := usage(self._client):
            into.put("client.rss_bytes", me.rss_bytes)
