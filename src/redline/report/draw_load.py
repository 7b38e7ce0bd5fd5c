"""Charts with the load on one axis: throughput, latencies, and what one costs the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import altair as alt

from redline.analyse.comparison import BETTER, WORSE, EnginePoint, ModelComparison
from redline.analyse.finding import Interval
from redline.report import palette
from redline.report.canvas import (
    BAD,
    HEIGHT,
    WIDTH,
    Drawing,
    Row,
    Ruler,
    colour,
    data,
    load_axis,
    ruler,
    shape,
    text_of,
)
from redline.report.columns import vectors
from redline.report.model import ModelReport, Report, load_label, load_unit
from redline.report.numbers import metric_name, number, ratio_text

LATENCIES = (
    ("ttft", "ttft_ms", "Time to first token (TTFT)"),
    ("itl", "itl_ms", "Inter-token latency (ITL)"),
    ("e2e", "e2e_ms", "End-to-end latency (E2E)"),
)
READ = "hollow: degraded · ×: not to be believed · band: 95 % interval"


def drawings(model: ModelReport, report: Report) -> Iterator[Drawing]:
    comparison = model.comparison
    if not comparison.points:
        return
    way = "input" if vectors(report) else "output"
    made = [_throughput(comparison, report, "throughput", f"{way}_tokens_per_s", f"{way.title()} throughput", "tok/s")]
    if report.promised:
        made.append(_throughput(comparison, report, "goodput", "goodput_per_s", "Goodput under the SLO", "req/s"))
    for kind, metric, title in LATENCIES[-1:] if vectors(report) else LATENCIES:
        made.append(_latency(comparison, report, kind, metric, title))
    if len(comparison.points) > 1 and not vectors(report):
        made.append(_trade_off(comparison, report))
    yield from (one for one in made if one is not None)  # None: there is no such number, e.g. no ITL of single tokens


def _rows(model: ModelComparison, name: str, level: str = "") -> list[Row]:
    rows = []
    for point in model.points:
        for found in point.engines:
            pooled = found.numbers.get(name)
            if pooled is None or math.isnan(pooled.value):
                continue
            low, high = _band(pooled.interval)
            state = found.verdict.state
            rows.append(
                {
                    "engine": found.label,
                    "load": point.load[1],
                    "kind": point.load[0],
                    "value": None if math.isinf(pooled.value) else pooled.value,
                    "low": low,
                    "high": high,
                    "level": level,
                    "good": state == "valid",
                    "bad": state in BAD or math.isinf(pooled.value),
                    "said": _said(found, name, load_label(point.load), pooled.unit, pooled.interval),
                }
            )
    return rows


def _band(interval: Interval | None) -> tuple[float | None, float | None]:
    if interval is None or not math.isfinite(interval.low):
        return None, None
    return interval.low, interval.high if math.isfinite(interval.high) else None


def _said(found: EnginePoint, name: str, load: str, unit: str, interval: Interval | None) -> str:
    """What a reader sees who points at a mark."""
    value = text_of(found.value(name), unit)
    band = f" [{number(interval.low)}–{number(interval.high)}]" if interval else ""
    state = "" if found.verdict.state == "valid" else f" · {found.verdict.state}"
    return f"{found.label} at {load}: {metric_name(name)} {value}{band}{state}"


def _shown(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["engine"] for row in rows))


def _notes(rows: list[Row]) -> str:
    """How to read the marks, only as far as there are such marks."""
    parts = READ.split(" · ")
    kept = [
        parts[0] if any(not row["good"] and not row["bad"] for row in rows) else "",
        parts[1] if any(row["bad"] for row in rows) else "",
        parts[2] if any(row["low"] is not None for row in rows) else "",
    ]
    return " · ".join(part for part in kept if part)


def _throughput(
    model: ModelComparison, report: Report, kind: str, metric: str, title: str, unit: str
) -> Drawing | None:
    rows = _rows(model, metric)
    if not rows:
        return None
    y = ruler(unit, [row["value"] for row in rows if row["value"] is not None], zero=True)
    chart = _lines(rows, model, report, y)
    notes = tuple(part for part in (_takeaway(model, metric, unit), _notes(rows)) if part)
    return Drawing(
        kind, f"{title} against load, {unit}", f"{title} of each engine at each load point, in {unit}", chart, notes
    )


def _latency(model: ModelComparison, report: Report, kind: str, metric: str, title: str) -> Drawing | None:
    rows = [*_rows(model, f"{metric}.p50", "p50"), *_rows(model, f"{metric}.p99", "p99")]
    if not rows:
        return None
    values = [row[name] for row in rows for name in ("value", "low", "high") if row[name] is not None]
    y = ruler("ms", values)
    chart = _lines(rows, model, report, y, levels=True)
    read = f"solid: p50 · dashed: p99 · {_notes(rows)}".rstrip(" ·")
    notes = tuple(part for part in (_takeaway(model, f"{metric}.p50", "ms"), read) if part)
    return Drawing(kind, f"{title}: p50 and p99, ms", f"{title}, p50 and p99 of each engine, in ms", chart, notes)


def _takeaway(model: ModelComparison, metric: str, unit: str) -> str:
    """The one difference at the highest load that can be told, in words; the values where none can."""
    for point in reversed(model.points):
        told = [e for e in point.engines if metric in e.ratios and e.ratios[metric].outcome in (BETTER, WORSE)]
        if told:
            best = max(told, key=lambda e: abs(1 - e.ratios[metric].value))
            ratio = ratio_text(best.ratios[metric], interval=False)
            value = text_of(best.value(metric), unit)
            what = "p50 " if metric.endswith(".p50") else ""
            return f"{best.label}: {what}{value} at {load_label(point.load)}, {ratio} {model.reference}"
    last = model.points[-1]
    known = [e for e in last.engines if math.isfinite(e.value(metric))]
    return " · ".join(f"{e.label}: {text_of(e.value(metric), unit)} at {load_label(last.load)}" for e in known[:2])


def _lines(rows: list[Row], model: ModelComparison, report: Report, y: Ruler, levels: bool = False) -> Any:
    shown = _shown(rows)
    x, hue = load_axis([point.load for point in model.points]), colour(report, shown)
    group = [alt.Detail("engine:N"), alt.Detail("level:N"), alt.Detail("kind:N")]
    dash = alt.StrokeDash("level:N", scale=alt.Scale(domain=["p50", "p99"], range=list(palette.DASHES)), legend=None)
    base = alt.Chart(data(row for row in rows if row["value"] is not None)).encode(x=x, color=hue, detail=group)
    line = base.mark_line(strokeWidth=2.2, aria=False).encode(y=y.y(), **({"strokeDash": dash} if levels else {}))
    banded = alt.Chart(data(row for row in rows if row["low"] is not None and row["high"] is not None))
    band = banded.mark_area(opacity=0.14, aria=False).encode(
        x=x, y=y.y("low"), y2=alt.Y2("high:Q"), color=hue, detail=group
    )
    whisker = banded.mark_rule(strokeWidth=1.2, opacity=0.6, aria=False).encode(
        x=x, y=y.y("low"), y2=alt.Y2("high:Q"), color=hue, detail=group
    )
    points = base.mark_point(size=62, strokeWidth=2, opacity=1).encode(
        y=y.y(),
        shape=shape(report, shown),
        fill=alt.condition("datum.good", hue, alt.value(palette.BACKGROUND)),
        description=alt.Description("said:N"),
    )
    failed = [row for row in rows if row["bad"]]
    marks = [band, whisker, line, points, *_failures(failed, x, y, hue)]
    return alt.layer(*marks, width=WIDTH, height=HEIGHT)


def _failures(rows: list[Row], x: Any, y: Ruler, hue: Any) -> list[Any]:
    """× through a value that means nothing; ∞ at the upper edge for one that a failure occupies."""
    layers = []
    if finite := [row for row in rows if row["value"] is not None]:
        crosses = alt.Chart(data(finite)).mark_text(
            text="×", fontSize=22, fontWeight="bold", color=palette.ALARM, aria=False
        )
        layers.append(crosses.encode(x=x, y=y.y()))
    if endless := [row for row in rows if row["value"] is None]:
        sign = alt.Chart(data(endless)).mark_text(text="∞", fontSize=18, fontWeight="bold", dy=8)
        layers.append(sign.encode(x=x, y=alt.value(0), color=hue, description=alt.Description("said:N")))
    return layers


def _trade_off(model: ModelComparison, report: Report) -> Drawing | None:
    """Throughput of the server against the speed that one client sees."""
    rows: list[Row] = []
    for point in model.points:
        for found in point.engines:
            tpot, rate = found.value("tpot_ms.p50"), found.value("output_tokens_per_s")
            if not (0 < tpot < math.inf and math.isfinite(rate)):
                continue
            label = load_label(point.load)
            rows.append(
                {
                    "engine": found.label, "user": 1000 / tpot, "value": rate, "load": point.load[1],
                    "kind": point.load[0], "text": f"{point.load[1]:g}", "good": found.verdict.state == "valid",
                    "bad": found.verdict.state in BAD, "low": None,
                    "said": f"{found.label} at {label}: {text_of(rate, 'tok/s')} in all, "
                    f"{text_of(1000 / tpot, 'tok/s')} for a median client",
                }
            )  # fmt: skip
    if not rows:
        return None
    shown = _shown(rows)
    hue = colour(report, shown)
    y = ruler("output tok/s of the server", [row["value"] for row in rows])
    x = ruler("tok/s that a median client sees", [row["user"] for row in rows])
    base = alt.Chart(data(rows)).encode(x=x.x("user"), y=y.y(), color=hue)
    line = base.mark_line(strokeWidth=2, aria=False).encode(order=alt.Order("load:Q"), detail="kind:N")
    points = base.mark_point(size=62, strokeWidth=2, opacity=1).encode(
        shape=shape(report, shown),
        fill=alt.condition("datum.good", hue, alt.value(palette.BACKGROUND)),
        description=alt.Description("said:N"),
    )
    names = base.mark_text(dx=9, dy=-8, align="left", fontSize=11, aria=False).encode(
        text=alt.Text("text:N"), color=alt.value(palette.MUTED)
    )
    unit = load_unit(point.load for point in model.points)
    notes = (f"up and to the right is better · numbers at the points: {unit}",)
    alt_text = "Output throughput of the server against the tokens per second that a median client sees"
    chart = alt.layer(line, points, names, width=WIDTH, height=HEIGHT)
    return Drawing("trade-off", "Throughput against speed per client", alt_text, chart, notes)
