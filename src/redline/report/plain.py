"""The report as plain dictionaries, for `--json`. NaN becomes null and infinity the text "inf"."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from redline.analyse.classes import ClassSummary
from redline.analyse.comparison import EnginePoint, Footprint, ModelComparison, Pooled, Ratio
from redline.analyse.finding import Interval
from redline.report.headline import caveats, claims
from redline.report.model import EngineReport, Measured, ModelReport, Report, load_label
from redline.units import DEFINITIONS


def as_dict(report: Report) -> dict[str, Any]:
    """Everything a program could want of the report; only JSON types."""
    return {
        "title": report.title,
        "verdict": {"state": report.verdict.state, "reasons": list(report.verdict.reasons)},
        "banners": list(report.banners),
        "missing": list(report.missing),
        "sections": {
            section.key: {
                "title": section.title,
                "rows": [dict(zip(section.heads, row, strict=True)) for row in section.rows],
                "notes": list(section.notes),
            }
            for section in report.sections
        },
        "claims": [clean(asdict(claim)) for claim in claims(report)],
        "caveats": caveats(report),
        "slo": {**report.slo, "attainment": report.attainment} if report.slo else {},
        "runs": [clean(asdict(run)) for run in report.runs],
        "models": [_model(model) for model in report.models],
        "definitions": {name: {"unit": d.unit, "text": d.text, "better": d.better} for name, d in DEFINITIONS.items()},
    }


def _model(model: ModelReport) -> dict[str, Any]:
    return {
        "model": model.name,
        "reference": model.comparison.reference,
        "engines": [_engine(engine, model.comparison) for engine in model.engines],
        "points": [
            {
                "load": {"kind": point.load[0], "value": point.load[1], "label": load_label(point.load)},
                "engines": {found.label: _point(found, model) for found in point.engines},
            }
            for point in model.comparison.points
        ],
    }


def _engine(engine: EngineReport, comparison: ModelComparison) -> dict[str, Any]:
    foot = next((foot for foot in comparison.footprints if foot.label == engine.label), Footprint("", {}, {}))
    return {
        "label": engine.label,
        "kind": engine.kind,
        "version": engine.version,
        "status": engine.status,
        "error": engine.error,
        "asked": clean(engine.asked),
        "flags": engine.flags,
        "hashes": engine.hashes,
        "starts": [clean(asdict(start)) for start in engine.starts],
        "numbers": {name: _pooled(pooled) for name, pooled in foot.numbers.items()},
        "ratios": {name: _ratio(ratio) for name, ratio in foot.ratios.items()},
    }


def _point(found: EnginePoint, model: ModelReport) -> dict[str, Any]:
    load = next(point.load for point in model.comparison.points if found in point.engines)
    return {
        "verdict": {"state": found.verdict.state, "reasons": list(found.verdict.reasons)},
        "counts": found.counts,
        "numbers": {name: _pooled(pooled) for name, pooled in found.numbers.items()},
        "ratios": {name: _ratio(ratio) for name, ratio in found.ratios.items()},
        "evidence": [_evidence(one) for one in model.engine(found.label).points[load]],
    }


def _evidence(one: Measured) -> dict[str, Any]:
    summary = one.summary
    window = summary.window
    return {
        "run": one.run_id,
        "trial": one.trial_id,
        "point": one.point_id,
        "repeat": one.repeat,
        "complete": one.complete,
        "stopped_by": one.stopped_by,
        "tokens_per_chunk": {str(size): count for size, count in summary.tokens_per_chunk.items()},
        "token_sources": summary.token_sources,
        "stamps": summary.stamps,
        "steady_window": {"seconds": clean(window.seconds), "found": window.found, "note": window.note},
        "errors": [list(error) for error in one.errors],
        "notes": list(summary.notes),
        "classes": {name: _class(found) for name, found in summary.classes.items()},
    }


def _class(one: ClassSummary) -> dict[str, Any]:
    return {
        "share": clean(one.share),
        "counted": one.counted,
        "failed": one.failed,
        "slo": {**one.promise.terms, "attainment": one.promise.attainment} if one.promise.terms else {},
        "kept": one.kept,
        "findings": {
            name: {
                "value": clean(found.value),
                "interval": _interval(found.interval),
                "definition": found.definition,
                "of": found.of,
            }
            for name, found in one.findings.items()
        },
    }


def _pooled(pooled: Pooled) -> dict[str, Any]:
    return {
        "value": clean(pooled.value),
        "unit": pooled.unit,
        "definition": pooled.definition,
        "interval": _interval(pooled.interval),
        "repeats": clean(list(pooled.repeats)),
        "of": pooled.of,
        "note": pooled.note,
    }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {
        "value": clean(ratio.value),
        "interval": _interval(ratio.interval),
        "outcome": ratio.outcome,
        "note": ratio.note,
        "bound": ratio.bound,
    }


def _interval(interval: Interval | None) -> list[Any] | None:
    return None if interval is None else [clean(interval.low), clean(interval.high), interval.level]


def clean(value: Any) -> Any:
    """With every float one that JSON has."""
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): clean(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(entry) for entry in value]
    return value
