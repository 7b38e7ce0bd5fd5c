"""Samplers at work: one thread each, on the monotonic clock. None of them can stop another, or the run.

A sampler that cannot be opened is skipped, with the reason; one that fails leaves a note and is tried again; one that
hangs is told of while it does. What each costs is measured, and sampled too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from redline.errors import Skipped
from redline.observe.causes import CauseSampler
from redline.observe.dcgm import open_dcgm
from redline.observe.engine_metrics import MetricsSampler
from redline.observe.gpu import GpuSampler
from redline.observe.host import HostSampler
from redline.observe.reading import Reading
from redline.observe.sample import Sample

Emit = Callable[[str, list[Sample]], None]
MAX_NOTES = 40
HUNG_S = 5.0
OWN_EVERY_S = 1.0
NAMES = ("host", "gpu", "metrics", "dcgm")
EXPLAINING = (*NAMES, "causes")
CAUSES_S = 0.03
DUTIES = {"host": 0.02, "gpu": 0.1, "metrics": 0.05, "dcgm": 0.05, "causes": 0.05}
"""A sampler works at most this share of the time: what is slow is asked less often."""
CREDIT_S = 2.0
"""That share is kept over so long: one costly look (a walk of page tables) makes no hole in the others."""


class Sampler(Protocol):
    name: str
    notes: list[str]

    def read(self) -> list[Sample]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What is sampled, and how often. `pids` are the engine's, `client` is redline's own process."""

    pids: tuple[int, ...] = ()
    client: int = 0
    interval_s: float = 0.1
    metrics_url: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    metrics_interval_s: float = 0.5
    samplers: tuple[str, ...] = NAMES

    def interval(self, sampler: str) -> float:
        return {"metrics": self.metrics_interval_s, "dcgm": 1.0, "causes": CAUSES_S}.get(sampler, self.interval_s)


@dataclass
class Overhead:
    """What one sampler cost. A tick is late when it began more than half an interval after it was due."""

    interval_s: float = 0.0
    ticks: int = 0
    late_ticks: int = 0
    cpu_s: float = 0.0
    busy_s: float = 0.0
    longest_tick_ms: float = 0.0
    elapsed_s: float = 0.0

    def as_dict(self) -> dict[str, float]:
        told = asdict(self)
        told["cpu_share"] = self.cpu_s / self.elapsed_s if self.elapsed_s else 0.0
        told["tick_ms"] = self.busy_s * 1000 / self.ticks if self.ticks else 0.0
        told["every_s"] = self.elapsed_s / self.ticks if self.ticks else 0.0
        return told


class Samplers:
    """`emit` gets the name of a sampler and what it read, in that sampler's thread."""

    def __init__(self, plan: Plan, emit: Emit, nvml_library: Any = None) -> None:
        self._plan, self._emit = plan, emit
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._began: dict[str, float] = {}
        self._hung: set[str] = set()
        self.overhead: dict[str, Overhead] = {}
        self.skipped: dict[str, Skipped] = {}
        self.notes: list[str] = []
        openers: dict[str, Callable[[], Sampler | Skipped]] = {
            "host": lambda: HostSampler(plan.pids, plan.client or None),
            "gpu": lambda: GpuSampler.open(plan.pids, nvml_library),
            "metrics": lambda: MetricsSampler.open(plan.metrics_url, plan.headers),
            "dcgm": open_dcgm,
            "causes": lambda: CauseSampler(plan.pids, plan.client or None),
        }
        self._threads = [
            threading.Thread(target=self._run, args=(name, openers[name]), name=f"redline-{name}", daemon=True)
            for name in plan.samplers
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Each reads once more: the end of the run belongs to it. A driver that hangs must not hang the run."""
        self._stop.set()
        ends = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        self.look()

    def note(self, text: str) -> None:
        """Kept once, and not without end."""
        with self._lock:
            if text not in self.notes and len(self.notes) < MAX_NOTES:
                self.notes.append(text)

    def look(self) -> None:
        """Whether one of them hangs; to be called now and then."""
        for name, began in list(self._began.items()):
            waits = time.monotonic() - began
            if waits > HUNG_S and name not in self._hung:
                self._hung.add(name)
                self.note(f"{name}: no answer for {HUNG_S:.0f} s: its samples are missing meanwhile, the others go on")

    def told(self) -> dict[str, Any]:
        """Cost, what was skipped and why, and notes; ready for JSON."""
        with self._lock:
            return {
                "samplers": {name: cost.as_dict() for name, cost in list(self.overhead.items())},
                "skipped": {name: asdict(one) for name, one in self.skipped.items()},
                "notes": list(self.notes),
            }

    def _run(self, name: str, opener: Callable[[], Sampler | Skipped]) -> None:
        self._began[name] = time.monotonic()
        try:
            opened = opener()
        except Exception as error:
            self.note(f"{name}: {type(error).__name__}: {error}")
            return
        finally:
            self._done(name)
        if isinstance(opened, Skipped):
            with self._lock:
                self.skipped[name] = opened
            return
        _Loop(self, opened, self._plan.interval(name), DUTIES[name]).run()

    def _done(self, name: str) -> None:
        waited = time.monotonic() - self._began.pop(name, time.monotonic())
        if name in self._hung:
            self._hung.discard(name)
            self.note(f"{name}: answered again after {waited:.0f} s")


class _Loop:
    """One sampler, tick by tick."""

    def __init__(self, owner: Samplers, sampler: Sampler, interval_s: float, duty: float) -> None:
        self._owner, self._sampler = owner, sampler
        self._interval_s, self._duty = interval_s, duty
        self._cost = owner.overhead.setdefault(sampler.name, Overhead(interval_s))
        self._credit_s = CREDIT_S * duty
        self._own = (0.0, 0, 0.0)

    def run(self) -> None:
        stop, cost = self._owner._stop, self._cost
        began_s, cpu_began_s = time.monotonic(), time.thread_time()
        due_s = began_s
        while not stop.is_set():
            tick_s, tick_cpu_s = time.monotonic(), time.thread_time()
            if tick_s - due_s > self._interval_s / 2:
                cost.late_ticks += 1
                due_s = tick_s  # what was missed is not made up for
            self._tick()
            took_s, cpu_s = time.monotonic() - tick_s, time.thread_time() - tick_cpu_s
            cost.elapsed_s, cost.cpu_s = time.monotonic() - began_s, time.thread_time() - cpu_began_s
            self._tell()
            # Waiting for a core is no reason to look less often, work and a slow driver or server are.
            busy_s = cpu_s if self._sampler.name in ("host", "causes") else took_s
            due_s += self._interval_s + self._owed_s(busy_s)
            stop.wait(max(0.0, due_s - time.monotonic()))
        self._tick()
        cost.elapsed_s, cost.cpu_s = time.monotonic() - began_s, time.thread_time() - cpu_began_s
        self._tell(last=True)
        try:
            self._sampler.close()
        except Exception as error:
            self._owner.note(f"{self._sampler.name}: {type(error).__name__}: {error}")

    def _owed_s(self, busy_s: float) -> float:
        """How much longer than the interval to rest, for the work of the last tick and of those before it."""
        self._credit_s = min(self._credit_s + self._interval_s * self._duty, CREDIT_S * self._duty) - busy_s
        if self._credit_s >= 0:
            return 0.0
        owed_s, self._credit_s = -self._credit_s / self._duty, 0.0
        return owed_s

    def _tick(self) -> None:
        name, cost = self._sampler.name, self._cost
        began_s = self._owner._began[name] = time.monotonic()
        try:
            self._owner._emit(name, self._sampler.read())
        except Exception as error:  # the run is worth more than its samples
            self._owner.note(f"{name}: {type(error).__name__}: {error}")
        finally:
            took_s = time.monotonic() - began_s
            self._owner._done(name)
        notes: Sequence[str] = self._sampler.notes
        for text in notes:
            self._owner.note(text)
        self._sampler.notes.clear()
        cost.ticks += 1
        cost.busy_s += took_s
        cost.longest_tick_ms = max(cost.longest_tick_ms, took_s * 1000)

    def _tell(self, last: bool = False) -> None:
        at_s, ticks, busy_s = self._own
        cost = self._cost
        if not last and time.monotonic() - at_s < OWN_EVERY_S:
            return
        into, labels = Reading(), {"sampler": self._sampler.name}
        into.put("sampler.cpu_s", cost.cpu_s, labels)
        into.put("sampler.late_ticks", cost.late_ticks, labels)
        if cost.ticks > ticks:
            into.put("sampler.tick_ms", (cost.busy_s - busy_s) * 1000 / (cost.ticks - ticks), labels)
        self._own = (time.monotonic(), cost.ticks, cost.busy_s)
        try:
            self._owner._emit("sampler", into.samples)
        except Exception as error:
            self._owner.note(f"{self._sampler.name}: {type(error).__name__}: {error}")
