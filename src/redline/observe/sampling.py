"""Samplers at work beside a run: one thread each, on the monotonic clock, never in the way.

A sampler that fails leaves a note and the run goes on. What sampling itself costs is measured and sampled too
(`sampler.cpu_s`, label `sampler`), so that it can be told from the engine's own cost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from redline.clock import now_ns
from redline.errors import Skipped
from redline.observe.gpu import GpuSampler
from redline.observe.host import HostSampler
from redline.observe.proc import has_children_file
from redline.observe.sample import Sample

Keep = Callable[[list[Sample]], None]
MAX_DUTY = 0.1  # a sampler works at most this share of the time: a slow driver is asked less often
MAX_NOTES = 20


class Sampler(Protocol):
    name: str

    def read(self) -> list[Sample]: ...

    def close(self) -> None: ...


@dataclass
class Overhead:
    """What one sampler cost."""

    ticks: int = 0
    cpu_s: float = 0.0
    longest_tick_ms: float = 0.0
    elapsed_s: float = 0.0


@dataclass
class Watch:
    """What `sampling` gives: complete after the `with` block."""

    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    overhead: dict[str, Overhead] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Kept once, and not without end."""
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)


@contextmanager
def sampling(pids: Sequence[int], keep: Keep, interval_s: float = 0.1, *, nvml_library: Any = None) -> Iterator[Watch]:
    """Samples the processes `pids` with all their descendants, the box and its GPUs until the block ends.

    `keep` gets each tick's samples, in a thread of ours. Nothing is raised into the block.
    """
    watch = Watch()
    stop = threading.Event()
    threads = [
        threading.Thread(target=_loop, args=(sampler, keep, interval_s, stop, watch), name=f"redline-{sampler.name}")
        for sampler in _samplers(pids, watch, nvml_library)
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
    try:
        yield watch
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=5)  # a driver that hangs must not hang the run


def _samplers(pids: Sequence[int], watch: Watch, nvml_library: Any) -> list[Sampler]:
    samplers: list[Sampler] = []
    try:
        samplers.append(HostSampler(pids))
        if not has_children_file():
            watch.note("this kernel does not list child processes: memory and CPU of an engine's workers are missing")
    except Exception as error:
        watch.note(f"host: {type(error).__name__}: {error}")
    try:
        gpu = GpuSampler.open(pids, nvml_library)
        if isinstance(gpu, Skipped):
            watch.skipped.append(gpu)
        else:
            samplers.append(gpu)
    except Exception as error:
        watch.note(f"gpu: {type(error).__name__}: {error}")
    return samplers


def _loop(sampler: Sampler, keep: Keep, interval_s: float, stop: threading.Event, watch: Watch) -> None:
    cost = watch.overhead.setdefault(sampler.name, Overhead())
    began_s, cpu_began_s = time.monotonic(), time.thread_time()
    due_s = began_s
    while not stop.is_set():
        tick_s, tick_cpu_s = time.monotonic(), time.thread_time()
        _tick(sampler, keep, watch)
        took_s = time.monotonic() - tick_s
        cost.ticks += 1
        cost.longest_tick_ms = max(cost.longest_tick_ms, took_s * 1000)
        cost.elapsed_s, cost.cpu_s = time.monotonic() - began_s, time.thread_time() - cpu_began_s
        # Waiting for a core is no reason to look less often, work and a slow driver are.
        busy_s = time.thread_time() - tick_cpu_s if sampler.name == "host" else took_s
        due_s = max(due_s + interval_s, tick_s + busy_s / MAX_DUTY, time.monotonic())
        stop.wait(max(0.0, due_s - time.monotonic()))
    _tick(sampler, keep, watch)  # the end of the run belongs to it
    cost.elapsed_s, cost.cpu_s = time.monotonic() - began_s, time.thread_time() - cpu_began_s
    try:
        keep([Sample(now_ns(), "sampler.cpu_s", cost.cpu_s, "s", {"sampler": sampler.name})])
        sampler.close()
    except Exception as error:
        watch.note(f"{sampler.name}: {type(error).__name__}: {error}")


def _tick(sampler: Sampler, keep: Keep, watch: Watch) -> None:
    try:
        keep(sampler.read())
    except Exception as error:  # the run is worth more than its samples
        watch.note(f"{sampler.name}: {type(error).__name__}: {error}")
