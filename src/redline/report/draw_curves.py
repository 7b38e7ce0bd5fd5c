"""Charts of what lies behind a load point: distributions, and how it went over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np

from redline.analyse.comparison import Load
from redline.analyse.percentile import Floats
from redline.report import palette
from redline.report.canvas import SMALL_HEIGHT, SMALL_WIDTH, Drawing, Row, colour, data, ruler, some_loads
from redline.report.columns import vectors
from redline.report.model import Measured, ModelReport, Report, load_label

DISTRIBUTIONS = (
    ("ttft-distribution", "ttft_ms", "Distribution of the time to first token (TTFT), ms"),
    ("itl-distribution", "itl_ms", "Distribution of inter-token latency (ITL), ms"),
    ("e2e-distribution", "e2e_ms", "Distribution of end-to-end latency (E2E), ms"),
)


def drawings(model: ModelReport, report: Report) -> Iterator[Drawing]:
    loads = some_loads([point.load for point in model.comparison.points])
    if not loads:
        return
    shown = [measured for load in loads for _, measured in _firsts(model, load)]
    for kind, metric, title in DISTRIBUTIONS[-1:] if vectors(report) else DISTRIBUTIONS:
        if not any(len(measured.distributions[metric].value) for measured in shown):
            continue
        panels = [_ecdf(model, report, load, metric, first=i == 0) for i, load in enumerate(loads)]
        alt_text = f"{title}, one panel per load point, one curve per engine"
        notes = ("share of all that are at most this long; a curve that ends below 100 % has failures",)
        yield Drawing(kind, title, alt_text, _side_by_side(panels), _less(notes, loads, model))
    if vectors(report):
        return  # no token came, early or late
    for kind, title, draw in (
        ("ttft-timeline", "Time to first token over time, ms", _ttft),
        ("itl-timeline", "Inter-token latency over time (gaps between chunks), ms", _itl),
        ("tokens-timeline", "Output over time, tok/s", _tokens),
    ):
        if not any((values > 0).any() for measured in shown for _, values in draw(measured)):
            continue
        panels = [_over_time(model, report, load, draw, first=i == 0) for i, load in enumerate(loads)]
        notes = (_LEGENDS[kind],)
        alt_text = f"{title}, one panel per load point, one curve per engine"
        yield Drawing(kind, title, alt_text, _side_by_side(panels), _less(notes, loads, model))


_LEGENDS = {
    "ttft-timeline": "line: median in each 60th of the time · dots: the longest · dashed: steady window",
    "itl-timeline": "line: median in each 60th of the time · pale: p99 · dashed: steady window",
    "tokens-timeline": "what arrived in each 60th of the time · dashed: steady window",
}


def _less(notes: tuple[str, ...], loads: Sequence[Load], model: ModelReport) -> tuple[str, ...]:
    total = len(model.comparison.points)
    if any(len(engine.points.get(load, ())) > 1 for engine in model.engines for load in loads):
        notes = (*notes, "the first of several measurements of each load point")
    return notes if len(loads) == total else (*notes, f"{len(loads)} of {total} load points shown")


def _side_by_side(panels: list[Any]) -> Any:
    # one legend: every panel has the same colours
    return alt.concat(*panels, columns=len(panels) if len(panels) < 5 else 3, spacing=26).resolve_scale(color="shared")


def _firsts(model: ModelReport, load: Load) -> list[tuple[str, Measured]]:
    """The first repeat of every engine at this load point."""
    return [(engine.label, engine.points[load][0]) for engine in model.engines if load in engine.points]


def _measured(model: ModelReport) -> list[str]:
    """The engines that have anything to draw, the same in every panel."""
    return [engine.label for engine in model.engines if engine.points]


def _ecdf(model: ModelReport, report: Report, load: Load, metric: str, first: bool) -> Any:
    rows: list[Row] = []
    for label, measured in _firsts(model, load):
        curve = measured.distributions[metric]
        # nothing lies below the smallest value
        values, shares = [*curve.value[:1], *curve.value], [0.0, *curve.share]
        rows += [
            {"engine": label, "value": float(value), "share": float(share)}
            for value, share in zip(values, shares, strict=False)
        ]
    values = [row["value"] for row in rows]
    # tokens that came together have gaps of 0, which would make the axis linear: their share is where the curve starts
    x = ruler("ms", [value for value in values if value > 0.01] or [1.0])
    y = alt.Y(
        "share:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    )
    base = alt.Chart(data(rows), title=_panel(load), width=SMALL_WIDTH, height=SMALL_HEIGHT)
    return base.mark_line(interpolate="step-after", strokeWidth=2, aria=False).encode(
        x=x.x(), y=y, color=colour(report, _measured(model), legend=first)
    )


def _panel(load: Load) -> alt.TitleParams:
    return alt.TitleParams(load_label(load), anchor="start", fontSize=12, color=palette.TEXT, offset=4)


def _ttft(measured: Measured) -> list[tuple[str, Floats]]:
    return [("line", measured.timeline.ttft_p50), ("dot", measured.timeline.ttft_max)]


def _itl(measured: Measured) -> list[tuple[str, Floats]]:
    return [("line", measured.timeline.itl_p50), ("pale", measured.timeline.itl_p99)]


def _tokens(measured: Measured) -> list[tuple[str, Floats]]:
    return [("line", measured.timeline.tokens_per_s)]


def _over_time(model: ModelReport, report: Report, load: Load, draw: Any, first: bool) -> Any:
    rows: list[Row] = []
    edges: list[Row] = []
    for label, measured in _firsts(model, load):
        seconds = measured.timeline.seconds
        edges += [{"engine": label, "at": at} for at in measured.timeline.steady]
        for mark, values in draw(measured):
            known = np.isfinite(values)
            rows += [
                {"engine": label, "mark": mark, "at": float(at), "value": float(value)}
                for at, value in zip(seconds[known], values[known], strict=True)
            ]
    rates = draw is _tokens
    y = ruler("tok/s" if rates else "ms", [row["value"] for row in rows], zero=rates)
    x = alt.X(
        "at:Q",
        title="s",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(grid=False, tickCount=5, labelFlush=False),
    )
    hue = colour(report, _measured(model), legend=first)
    positive = [row for row in rows if row["value"] > 0 or not y.logarithmic]
    base = alt.Chart(data(positive), title=_panel(load)).encode(x=x, y=y.y(), color=hue)
    layers = [
        base.transform_filter("datum.mark == 'pale'").mark_line(strokeWidth=1.2, opacity=0.45, aria=False),
        base.transform_filter("datum.mark == 'dot'").mark_circle(size=16, opacity=0.55, aria=False),
        base.transform_filter("datum.mark == 'line'").mark_line(strokeWidth=2, aria=False),
        alt.Chart(data(edges)).mark_rule(strokeDash=[3, 3], strokeWidth=1, aria=False).encode(x=x, color=hue),
    ]
    return alt.layer(*layers, width=SMALL_WIDTH, height=SMALL_HEIGHT)
