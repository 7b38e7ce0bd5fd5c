"""Stages of a load that changes while it is measured: each on its own, since the whole has no steady state."""

from __future__ import annotations

from collections.abc import Sequence

from redline.analyse.stages import Stage, by_stage
from redline.report.model import Measured, ModelReport, whose
from redline.report.numbers import few_notes, number, percentile_text
from redline.report.section import Section
from redline.spec.slo import SloSpec
from redline.store.read import Reader
from redline.store.rows import RunRow

_HEADS = (
    "engine", "stage", "asked", "had", "done/s", "TTFT ms p50", "TTFT ms p99", "ITL ms p50", "ITL ms p99",
    "good/s", "failed",
)  # fmt: skip
_NOTE = (
    "asked and had: requests sent per second, or requests in flight where the stages are clients. A request belongs to "
    "the stage in which it was to be sent. The load changes on purpose, so there is no steady state to look for: the "
    "headline numbers are over the whole, stages included."
)


def stages_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when no load point had stages."""
    slos = {row.id: _terms(row) for row in rows}
    table = [
        _row(whose(models, model.name, engine.label), stage)
        for model in models
        for engine in model.engines
        for many in engine.points.values()
        for one in many
        for stage in _stages(reader, one, slos.get(one.run_id, {}))
    ]
    notes = (_NOTE, *few_notes(table))
    return Section("stages", "Stage by stage", _HEADS, tuple(table), notes, brief=True) if table else None


def _stages(reader: Reader, one: Measured, slo: dict[str, float]) -> list[Stage]:
    plan = (one.outcome.get("traffic") or {}).get("stages")
    if not plan:
        return []
    requests = reader.requests(one.point_id)
    return by_stage(requests, plan, int(one.outcome["measured_from_ns"]), int(one.outcome["ended_ns"]), slo)


def _row(who: str, stage: Stage) -> tuple[str, ...]:
    return (
        who,
        stage.label,
        number(stage.asked),
        number(stage.had),
        number(stage.finished_per_s),
        percentile_text(stage.ttft_ms_p50, 0.5, stage.counted),
        percentile_text(stage.ttft_ms_p99, 0.99, stage.counted),
        percentile_text(stage.itl_ms_p50, 0.5, stage.gaps),
        percentile_text(stage.itl_ms_p99, 0.99, stage.gaps),
        number(stage.goodput_per_s),
        f"{stage.failed}/{stage.sent}",
    )


def _terms(row: RunRow) -> dict[str, float]:
    slo = row.experiment.get("slo") or {}
    known = {name: value for name, value in slo.items() if name in SloSpec.model_fields}
    return SloSpec.model_validate(known).terms
