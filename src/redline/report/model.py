"""The report as data: everything that the table, the pages and the charts show, and nothing of how they look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redline.analyse.comparison import Comparison, Load, ModelComparison, worst
from redline.analyse.curves import Distribution, Timeline
from redline.analyse.finding import Verdict
from redline.analyse.summary import PointSummary
from redline.analyse.telemetry import Panel
from redline.analyse.verdict import STATES
from redline.spec.load import LoadPoint
from redline.spec.promise import Promise

if TYPE_CHECKING:
    from redline.report.section import Section


@dataclass(frozen=True)
class RunInfo:
    """One stored run. `yaml` is its experiment in a form that `redline compare -f` reads back."""

    id: str
    name: str
    status: str
    verdict: Verdict
    started_wall: str
    duration_s: float | None
    redline_version: str
    argv: tuple[str, ...]
    experiment: dict[str, Any]
    experiment_hash: str
    yaml: str
    provenance: dict[str, Any]

    @property
    def repeatable(self) -> bool:
        """Whether `redline compare -f` measures the same: not what another tool measured, nor what was only served or
        was a proof of settings, which its own command begins."""
        return self.status != "imported" and self.argv[1:2] not in (("serve",), ("node",))


@dataclass(frozen=True)
class Measured:
    """One load point of one start of an engine: where it is stored, what was found, what to draw."""

    run_id: str
    trial_id: int
    point_id: int
    repeat: int
    complete: bool
    stopped_by: str
    summary: PointSummary
    outcome: dict[str, Any]
    """What the load generator said about itself, the box and the server; see `load/progress.py`."""
    distributions: dict[str, Distribution]
    timeline: Timeline
    errors: tuple[tuple[str, int, str, int], ...]
    """(status, HTTP status, error, how often), most frequent first."""
    panels: tuple[Panel, ...] = ()
    """What the samplers saw meanwhile."""

    @property
    def again(self) -> str:
        """Which of several measurements of a load point: `round 3` of an engine that stayed up, else `repeat 2`."""
        number = self.outcome.get("round")
        return f"repeat {self.repeat + 1}" if number is None else f"round {number + 1}"


@dataclass(frozen=True)
class Start:
    """One start of an engine. `status` is done, skipped, failed or interrupted."""

    run_id: str
    trial_id: int
    repeat: int
    status: str
    error: str
    startup_ms: dict[str, float]
    rss_bytes: float
    gpu_memory_bytes: float
    log: str
    telemetry: dict[str, Any] = field(default_factory=dict)
    """What the samplers said of themselves: cost, what was skipped and why, notes."""


@dataclass(frozen=True)
class EngineReport:
    """One engine configuration with one model, over all its starts. `asked` are the flags of the experiment,
    `flags` what the engine says that it resolved."""

    label: str
    kind: str
    version: str
    asked: dict[str, Any]
    flags: dict[str, str]
    hashes: dict[str, str]
    starts: tuple[Start, ...]
    points: dict[Load, tuple[Measured, ...]]

    @property
    def status(self) -> str:
        """done when anything was measured, else how the last start ended."""
        return "done" if self.points else self.starts[-1].status if self.starts else "not started"

    @property
    def error(self) -> str:
        """Why a start was skipped or failed; '' when none was."""
        return next((start.error for start in self.starts if start.error), "")


@dataclass(frozen=True)
class ModelReport:
    name: str
    engines: tuple[EngineReport, ...]
    comparison: ModelComparison

    def engine(self, label: str) -> EngineReport:
        return next(engine for engine in self.engines if engine.label == label)


@dataclass(frozen=True)
class Report:
    """`colours` gives every engine label its place in the palette, the same in every chart. `missing` lists what was
    planned and not measured, `banners` what a reader must know before anything else."""

    runs: tuple[RunInfo, ...]
    models: tuple[ModelReport, ...]
    comparison: Comparison
    slo: dict[str, float]
    attainment: float
    colours: dict[str, int]
    banners: tuple[str, ...]
    missing: tuple[str, ...]
    db: str = ""
    sections: tuple[Section, ...] = ()
    promises: dict[str, Promise] = field(default_factory=dict)
    """What each class of a mixed workload is promised."""

    @property
    def promised(self) -> bool:
        """Whether there is an SLO, for all requests or for a class of them."""
        return bool(self.slo) or any(promise.terms for promise in self.promises.values())

    @property
    def title(self) -> str:
        names = [run.name for run in self.runs if run.name]
        if names:
            return " and ".join(dict.fromkeys(names))
        labels = list(self.colours)
        return f"{' vs '.join(labels) if len(labels) < 4 else f'{len(labels)} engines'} on {self.model_names}"

    @property
    def model_names(self) -> str:
        return ", ".join(model.name for model in self.models)

    @property
    def verdict(self) -> Verdict:
        """The worst of all points, engines that were skipped aside."""
        verdicts = self._verdicts()
        return worst(verdicts) if verdicts else Verdict("invalid", ("nothing was measured",))

    @property
    def states(self) -> dict[str, int]:
        """How many engines at how many load points came out valid, degraded, …; the good news first."""
        found = [verdict.state for verdict in self._verdicts()]
        return {state: found.count(state) for state in STATES if state in found}

    def _verdicts(self) -> list[Verdict]:
        return [e.verdict for model in self.comparison.models for point in model.points for e in point.engines]


def load_label(load: Load) -> str:
    """`10 clients`, `4 req/s poisson`, `stages, 6 req/s on average`."""
    kind, value = load
    return LoadPoint(kind, value).label  # type: ignore[arg-type]


def load_unit(loads: Iterable[Load]) -> str:
    """What the numbers of these loads count, short enough for the head of a column; `load` where that is not one
    thing, as of several runs."""
    units = {_UNITS.get(kind, "req/s") for kind, _ in loads}
    return units.pop() if len(units) == 1 else "load" if units else "clients"


_UNITS = {"closed": "clients", "stages-closed": "clients", "trace": "speed"}


def whose(models: Sequence[ModelReport], model: str, engine: str) -> str:
    """Whose row it is: the engine alone where there is one model."""
    return engine if len(models) == 1 else f"{model} · {engine}"
