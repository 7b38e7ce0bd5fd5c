"""What a search found: every load in the order in which it was measured, the answer, and why it ended there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from redline.analyse.search import Seen, edge, fit_knee, kept, seen_of
from redline.analyse.slo import promised_share
from redline.analyse.summary import PointSummary
from redline.report.model import EngineReport, Measured, ModelReport, load_label
from redline.report.numbers import NONE, few_notes, number, percentile_text
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

_HEADS = ("model", "engine", "load", "why", "output tok/s", "TTFT p99", "ITL p99", "kept the SLO", "verdict")


def search_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when no run was a search."""
    specs = [row.experiment.get("search") or {} for row in rows]
    spec = next((one for one in specs if one.get("goal", "off") != "off"), None)
    if spec is None:
        return None
    attainment = float((rows[0].experiment.get("slo") or {}).get("attainment", 0.95))
    table: list[tuple[str, ...]] = []
    notes: list[str] = []
    for model in models:
        for engine in model.engines:
            steps = _steps(engine)
            table += [_row(model.name, engine.label, *step) for step in steps]
            if steps:
                notes += _answer(f"{model.name} · {engine.label}", spec["goal"], steps, attainment)
    notes += few_notes(table)
    title = "Sweet spot" if spec["goal"] == "knee" else "Most load under the SLO"
    return Section("search", title, _HEADS, tuple(table), tuple(notes), brief=True)


Step = tuple[tuple[str, float], Measured]


def _steps(engine: EngineReport) -> list[Step]:
    """Points of the search, in the order in which they were measured."""
    found = [(load, one) for load, many in engine.points.items() for one in many if "search" in one.outcome]
    return sorted(found, key=lambda step: step[1].point_id)


def _row(model: str, engine: str, load: tuple[str, float], one: Measured) -> tuple[str, ...]:
    value, summary = one.summary.value, one.summary
    share = value("slo_attainment")
    return (
        model,
        engine,
        load_label(load),
        str(one.outcome["search"].get("why", "")),
        number(value("output_tokens_per_s")),
        f"{_p99(summary, 'ttft_ms')} ms",
        f"{_p99(summary, 'itl_ms')} ms",
        "–" if math.isnan(share) else f"{share:.1%} of {summary.counts.get('counted', 0)}",
        summary.verdict.state,
    )


def _p99(summary: PointSummary, metric: str) -> str:
    found = summary.findings.get(f"{metric}.p99")
    return NONE if found is None else percentile_text(found.value, 0.99, found.of)


def _answer(who: str, goal: str, steps: Sequence[Step], attainment: float) -> list[str]:
    seen = [seen_of(load[1], one.summary) for load, one in steps]
    kind = steps[0][0][0]
    said = [_knee(who, kind, seen) if goal == "knee" else _most(who, kind, seen, attainment)]
    last: dict[str, Any] = steps[-1][1].outcome["search"]
    said.append(f"{who}: it ended because {last.get('stop') or 'the run was cut short'}")
    return said


def _knee(who: str, kind: str, seen: Sequence[Seen]) -> str:
    knee = fit_knee(seen)
    if knee is None:
        highest = max((one.load for one in seen), default=math.nan)
        return f"{who}: no knee up to {_load(kind, highest)}"
    if knee.load <= 1.05 * min(one.load for one in seen):
        return (
            f"{who}: throughput falls behind the load from {_load(kind, knee.load)} on, the lowest that was tried; the "
            f"plateau is {number(knee.plateau)} output tok/s"
        )
    band = f" [{_short(knee.interval.low)}–{_short(knee.interval.high)}]" if knee.interval else ""
    return (
        f"{who}: the knee is at {_load(kind, knee.load)}{band}: beyond it, 1 % more load brings less than half a "
        f"percent more tokens; the plateau is {number(knee.plateau)} output tok/s"
    )


def _most(who: str, kind: str, seen: Sequence[Seen], attainment: float) -> str:
    rows = kept(seen, attainment)
    best, broken = edge(rows)
    if best is None:
        return f"{who}: no load that was tried keeps the SLO in {promised_share(attainment)} of the requests"
    row = next(row for row in rows if row.load == best)
    band = f", at least {row.band.low:.1%} with 97.5 % confidence" if row.band else ""
    above = f"; {_load(kind, broken)} do not" if broken is not None else ""
    goodput = "" if math.isnan(row.goodput_per_s) else f", goodput {number(row.goodput_per_s)} req/s"
    return f"{who}: {_load(kind, best)} keep the SLO ({row.share:.1%} of the requests{band}){goodput}{above}"


def _load(kind: str, value: float) -> str:
    noun = "client" if value == 1 else "clients"
    return f"{_short(value)} {noun}" if kind == "closed" else f"{_short(value)} req/s"


def _short(value: float) -> str:
    """`12`, `4.5`, `1,024`: a load that was tried is as it was asked."""
    return f"{value:.3g}" if value < 99.95 else f"{value:,.0f}"
