"""What can be to blame: which series and events show that a cause is at work, and from which value on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.analyse.explain.grid import Floats, Grid

RTO_NS = 200_000_000
"""Linux waits at least so long before it sends a lost segment again."""


@dataclass(frozen=True)
class Source:
    """A series in the results file: at work from `floor` on. `lead_ns`: it shows so much later than it began."""

    name: str
    floor: float
    lead_ns: int = 0


@dataclass(frozen=True)
class Cause:
    """`family` is what a person would call it. `rank` is how near it is to the engine: of two that explain the same
    time, the lower one is named. `sources` are looked for in this order, the first that was measured counts; `events`
    are kinds of event that show the cause directly, and are used before any series."""

    key: str
    family: str
    text: str
    rank: int
    sources: tuple[Source, ...] = ()
    events: tuple[str, ...] = ()
    event_lead_ns: int = 0
    named_by: tuple[str, ...] = ()
    """Kinds of event that tell who did it, and nothing of when."""


CAUSES: tuple[Cause, ...] = (
    Cause("stopped", "stopped", "engine stopped or frozen", 0,
          (Source("cause.stopped_share", 0.05),), named_by=("stop",)),
    Cause("throttled", "cpu", "engine's CPU quota used up", 1,
          (Source("cause.throttled_share", 0.02),)),
    Cause("memory_limit", "memory", "engine at its memory limit", 1,
          (Source("cause.memory_limit_hits_per_s", 1.0),)),
    Cause("reclaim", "memory", "direct reclaim of memory", 2,
          (Source("cause.direct_reclaims_per_s", 1.0), Source("host.direct_reclaims_per_s", 1.0)), ("reclaim",)),
    Cause("compaction", "memory", "compaction of memory", 2,
          (Source("cause.compaction_stalls_per_s", 1.0), Source("host.compaction_stalls_per_s", 1.0)),
          ("compaction",)),
    Cause("oom", "memory", "out-of-memory killer", 2, (), ("oom",)),
    Cause("major_faults", "memory", "engine's pages read from disk", 2,
          (Source("cause.major_faults_per_s", 5.0), Source("engine.major_faults_per_s", 5.0))),
    Cause("stuck_memory", "memory", "engine waits for memory", 1, (Source("cause.stuck_memory_share", 0.5),)),
    Cause("stuck_disk", "disk", "engine waits for a disk", 2, (Source("cause.stuck_disk_share", 0.5),)),
    Cause("run_queue", "cpu", "engine had no CPU", 3,
          (Source("cause.run_queue_share", 0.1), Source("engine.run_queue_max_ms_per_s", 100.0)), ("run_queue",)),
    Cause("own_queue", "engine", "engine's threads in each other's way", 4, (),
          ("own_queue",)),
    Cause("redline_queue", "client", "redline took the engine's CPU", 4, (),
          ("redline_queue",)),
    Cause("prefill", "engine", "prefill of another request", 4, (), ("prefill",)),
    Cause("preemption", "engine", "preemption for want of KV cache", 3,
          (Source("engine.preemptions_per_s", 0.1),)),
    Cause("retransmit", "network", "TCP segments lost and sent again", 3,
          (Source("cause.tcp_retransmits_per_s", 1.0, RTO_NS), Source("cause.tcp_out_of_order_per_s", 1.0, RTO_NS),
           Source("host.tcp_retransmits_per_s", 1.0, RTO_NS)), ("retransmit",), RTO_NS),
    Cause("out_of_order", "network", "TCP segments out of order", 4,
          (Source("cause.tcp_out_of_order_per_s", 1.0, RTO_NS),)),
    Cause("drops", "network", "packets dropped by an interface", 4, (Source("host.network_drops_per_s", 1.0),)),
    Cause("block", "disk", "slow answers of a disk", 4, (), ("block",)),
    Cause("interrupts", "interrupts", "interrupts held a CPU", 4,
          (Source("cause.irq_max_share", 0.1), Source("host.cpu_softirq_share", 0.1)), ("irq", "softirq")),
    Cause("gpu_slowed", "gpu", "GPU clock held down", 2, (Source("gpu.slowed", 0.5),)),
    Cause("xid", "gpu", "fault of the GPU (Xid)", 1, (), ("xid",)),
    Cause("steal", "cpu", "CPUs taken by the hypervisor", 4,
          (Source("cause.steal_share", 0.05), Source("host.cpu_steal_share", 0.05))),
    Cause("memory_pressure", "memory", "box short of memory (PSI)", 5,
          (Source("cause.memory_pressure_share", 0.02), Source("host.memory_pressure_share", 0.02))),
    Cause("io_pressure", "disk", "box waits for disks (PSI)", 5,
          (Source("cause.io_pressure_share", 0.1), Source("host.io_pressure_share", 0.1))),
    Cause("cpu_pressure", "cpu", "box short of CPUs (PSI)", 6,
          (Source("cause.cpu_pressure_share", 0.1), Source("host.cpu_pressure_share", 0.1))),
    Cause("client_queue", "client", "load generator had no CPU", 5,
          (Source("cause.client_run_queue_share", 0.1),)),
)  # fmt: skip
BY_KEY = {cause.key: cause for cause in CAUSES}


@dataclass(frozen=True)
class Event:
    """Something that took place, on the clock of the requests. `who` is who did it, where that is known."""

    kind: str
    began_ns: int
    ended_ns: int
    who: str = ""
    text: str = ""


@dataclass(frozen=True)
class Measured:
    """A series of samples by its name; several (GPUs, disks) are several of these."""

    name: str
    t_ns: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Shown:
    """How much a cause was at work in each bucket, 0 to 1, by which evidence."""

    cause: Cause
    level: Floats
    source: str
    who: tuple[tuple[str, float], ...] = ()
    """Culprits with their share of the time of the events, greatest first."""


def shown(grid: Grid, series: Sequence[Measured], events: Sequence[Event], traced: frozenset[str]) -> list[Shown]:
    """Every cause that something was measured of. `traced` are the kinds of event that were watched for."""
    found = []
    for cause in CAUSES:
        mine = [event for event in events if event.kind in cause.events]
        if mine or (cause.events and traced & set(cause.events)):
            found.append(_by_events(grid, cause, mine))
            continue
        for source in cause.sources:
            same = [one for one in series if one.name == source.name and len(one.t_ns)]
            if same:
                level = np.max([grid.fill(one.t_ns, one.value, source.lead_ns) for one in same], axis=0)
                who = _culprits([event for event in events if event.kind in cause.named_by])
                found.append(Shown(cause, degree(level, source), source.name, who))
                break
    return found


def degree(level: Floats, source: Source) -> Floats:
    """A share of time is a degree by itself; anything else is at work or not."""
    if source.name.endswith("_share"):
        return np.where(level >= source.floor, np.clip(level, 0.0, 1.0), 0.0)
    return (level >= threshold(level, source.floor)).astype(np.float64)


def threshold(level: Floats, floor: float) -> float:
    """From where on a level counts as raised: `floor`, or where Otsu's method parts high from low, if that is higher.
    It looks at the cause alone, never at what was lost, so that the p-value holds."""
    raised = level[level >= floor]
    if not len(raised) or float(level.max()) <= 0:
        return floor
    values = np.sort(level)
    n, total = len(values), float(values.sum())
    low = np.arange(1, n)
    below = np.cumsum(values)[:-1]
    between = low * (n - low) * (below / low - (total - below) / (n - low)) ** 2
    place = int(np.argmax(between))
    return max(floor, float(values[place] + values[place + 1]) / 2)


def _culprits(events: Sequence[Event]) -> tuple[tuple[str, float], ...]:
    """Programs by their share of the time, most first; `name (pid)` are told as one where they are several."""
    length: dict[str, float] = {}
    members: dict[str, set[str]] = {}
    for event in events:
        if event.who:
            name = event.who.rpartition(" (")[0] or event.who
            length[name] = length.get(name, 0.0) + max(event.ended_ns - event.began_ns, 1)
            members.setdefault(name, set()).add(event.who)
    total = sum(length.values())
    named = {
        name: next(iter(who)) if len(who) == 1 else f"{name} ({len(who)} processes)" for name, who in members.items()
    }
    return tuple((named[name], part / total) for name, part in sorted(length.items(), key=lambda one: -one[1])[:5])


def _by_events(grid: Grid, cause: Cause, events: Sequence[Event]) -> Shown:
    began = np.array([event.began_ns - cause.event_lead_ns for event in events], np.int64)
    ended = np.array([max(event.ended_ns, event.began_ns + 1) for event in events], np.int64)
    level = grid.paint(began, ended) if len(events) else np.zeros(grid.size)
    who = _culprits(events)
    # a tenth of a bucket at least: what is shorter than that explains nothing
    return Shown(cause, np.where(level >= 0.1, np.minimum(level, 1.0), 0.0), "events", who)
