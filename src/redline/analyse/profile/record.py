"""What a profile found: engine by engine, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from redline.analyse.profile.breakdown import Breakdown
from redline.analyse.roofline import Standing


@dataclass(frozen=True)
class PhaseProfile:
    """One phase of one engine at one batch and context.

    `step_ms` is what a step took with no profiler running, by the client: the decode step, or the whole prefill.
    `profiled_step_ms` is the same while it was recorded; the profiler slows the host, hardly the device. `host_ms`
    estimates what the host costs a step without the profiler: `step_ms` less the time in which kernels ran.
    """

    phase: str
    batch: int
    asked: int
    """Tokens of the prompts."""
    context: float
    """Mean length of the sequences while it was recorded; of the prompts in a prefill."""
    step_ms: float
    profiled_step_ms: float
    host_ms: float | None
    per_token_ms: float
    breakdown: Breakdown | None
    standing: Standing | None = None
    intensity: float | None = None
    trace: str = ""
    readout: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KvMemory:
    """KV cache held by `sequences` of `tokens` each: what the engine says, beside the formula."""

    sequences: int
    tokens: float
    formula_bytes: float
    blocks_bytes: float
    """The formula with every sequence rounded up to whole blocks of the cache."""
    measured_bytes: float | None
    source: str
    """Where the measured number comes from, or why there is none."""


@dataclass(frozen=True)
class EngineProfile:
    """`backend` is the attention backend that the engine names, `flags` what it resolved. `skipped` or `failed`, in
    words, when there is nothing else."""

    label: str
    kind: str
    version: str = ""
    backend: str = ""
    flags: dict[str, str] = field(default_factory=dict)
    phases: tuple[PhaseProfile, ...] = ()
    memory: tuple[KvMemory, ...] = ()
    skipped: str = ""
    failed: str = ""

    def backends(self) -> tuple[str, ...]:
        """Attention backends that the names of the kernels tell, the one that took longest first."""
        sums: dict[str, float] = {}
        for one in self.phases:
            for name, us in (one.breakdown.attention if one.breakdown else {}).items():
                sums[name] = sums.get(name, 0.0) + us
        return tuple(sorted(sums, key=lambda name: -sums[name]))


@dataclass(frozen=True)
class Profile:
    """`ceilings` as kept for the card; empty when they were never measured."""

    model: str
    description: str
    card: str
    redline: str
    taken_wall: str
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    engines: tuple[EngineProfile, ...]
    ceilings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile_from(told: Mapping[str, Any]) -> Profile:
    """The inverse of `as_dict`, from its JSON."""
    from redline.analyse.profile.breakdown import Kernel

    def phase(one: Mapping[str, Any]) -> PhaseProfile:
        part = one["breakdown"]
        made = Breakdown(**{**part, "top": tuple(Kernel(**kernel) for kernel in part["top"])}) if part else None
        where = Standing(**one["standing"]) if one["standing"] else None
        return PhaseProfile(**{**one, "breakdown": made, "standing": where, "notes": tuple(one["notes"])})

    def engine(one: Mapping[str, Any]) -> EngineProfile:
        memory = tuple(KvMemory(**each) for each in one["memory"])
        return EngineProfile(**{**one, "phases": tuple(map(phase, one["phases"])), "memory": memory})

    lists = {name: tuple(told[name]) for name in ("batches", "contexts", "notes")}
    return Profile(**{**told, **lists, "engines": tuple(map(engine, told["engines"]))})
