"""What readers of the store give out: runs, their trials, their load points, and series of samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redline.spec.load import LoadPoint
from redline.store.requests import Ints


@dataclass(frozen=True)
class PointRow:
    """One load point. When it was cut off (`complete` is False), its window is what the stored requests span."""

    id: int
    trial_id: int
    kind: str
    value: float
    label: str
    started_ns: int
    measured_from_ns: int
    ended_ns: int
    stopped_by: str
    outcome: dict[str, Any]
    verdict: str
    reasons: tuple[str, ...]
    complete: bool

    @property
    def load_point(self) -> LoadPoint:
        return LoadPoint(self.kind, self.value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ArtifactRow:
    """A file worth keeping. `path` is absolute or relative to the working directory, like the store's own."""

    id: int
    run_id: str
    trial_id: int | None
    kind: str
    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class TrialRow:
    """One model on one engine configuration. `status` is `interrupted` when its process died before it ended."""

    id: int
    run_id: str
    model: str
    engine: str
    engine_kind: str
    engine_version: str
    repeat: int
    spec: dict[str, Any]
    endpoint: dict[str, Any]
    flags: dict[str, str]
    hashes: dict[str, str]
    startup_ms: dict[str, float]
    started_ns: int
    ready_ns: int | None
    ended_ns: int | None
    status: str
    error: str
    diagnosis: str
    telemetry: dict[str, Any] = field(default_factory=dict)
    """What the samplers said of themselves: cost, what was skipped, notes."""
    points: tuple[PointRow, ...] = ()
    artifacts: tuple[ArtifactRow, ...] = ()

    @property
    def log(self) -> Path | None:
        """The engine's log."""
        return next((artifact.path for artifact in self.artifacts if "log" in artifact.kind), None)


@dataclass(frozen=True)
class RunRow:
    """One run. `status` is running, done, interrupted or failed; a run whose process is dead counts as interrupted."""

    id: str
    name: str
    experiment: dict[str, Any]
    experiment_hash: str
    argv: tuple[str, ...]
    redline_version: str
    provenance: dict[str, Any]
    started_wall: str
    started_ns: int
    ended_ns: int | None
    status: str
    verdict: str
    reasons: tuple[str, ...]
    trials: tuple[TrialRow, ...] = ()
    artifacts: tuple[ArtifactRow, ...] = ()

    @property
    def served(self) -> bool:
        """Of `redline serve`: sampled, and without load points."""
        return self.argv[1:2] == ("serve",)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(trial.model for trial in self.trials))

    @property
    def engines(self) -> list[str]:
        return list(dict.fromkeys(trial.engine for trial in self.trials))

    @property
    def points(self) -> int:
        """How many load points were begun, over all trials."""
        return sum(len(trial.points) for trial in self.trials)

    @property
    def duration_s(self) -> float | None:
        return None if self.ended_ns is None else (self.ended_ns - self.started_ns) / 1e9

    def as_dict(self) -> dict[str, Any]:
        """Everything, trials and points included, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Series:
    """Samples of one name and one set of labels, in the order of time."""

    name: str
    unit: str
    labels: dict[str, str]
    t_ns: Ints
    value: NDArray[np.float64] = field(repr=False)
    trial_id: int = 0

    @cached_property
    def peak(self) -> float:
        """NaN when there is no sample."""
        return float(np.nanmax(self.value)) if np.isfinite(self.value).any() else float("nan")


@dataclass(frozen=True)
class EventRow:
    """Something that took place beside a trial; monotonic ns."""

    kind: str
    began_ns: int
    ended_ns: int
    who: str
    text: str


@dataclass(frozen=True)
class SpanRow:
    """A span of the engine; monotonic ns."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
