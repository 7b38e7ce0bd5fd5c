"""Charts of what the box did, below each other on the time axis of the requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from redline.analyse.telemetry import Panel
from redline.report import palette
from redline.report.canvas import PLAIN, Drawing, Row, data
from redline.report.model import ModelReport, Report, load_label
from redline.report.telemetry_panels import latency_panels

WIDTH, HEIGHT = 620, 62
MOST_ENGINES = 4
_SCALES = {"B/s": (1e-6, "MB/s")}


def drawings(model: ModelReport, report: Report) -> Iterator[Drawing]:
    """One per engine, at its highest load, as long as there are few of them."""
    engines = [engine for engine in model.engines if engine.points][:MOST_ENGINES]
    for place, engine in enumerate(engines):
        load = max(engine.points)
        measured = engine.points[load][0]
        if not measured.panels:
            continue
        found = (*latency_panels(measured.timeline), *measured.panels)
        last = len(found) - 1
        end = max(float(line.seconds[-1]) for panel in found for line in panel.lines)
        drawn = [_panel(one, measured.timeline.steady, end, axis=i == last) for i, one in enumerate(found)]
        chart = alt.vconcat(*drawn, spacing=10).resolve_scale(x="shared", color="independent")
        title = f"What the box did meanwhile: {engine.label} at {load_label(load)}"
        text = f"Latencies, requests, GPU, CPU and pressure over time, of {engine.label} at {load_label(load)}"
        notes = ("means over a 120th of the time · dashed: steady window · seconds from the start of the measurement",)
        yield Drawing(f"telemetry-{place + 1}", title, text, chart, notes)


def _panel(panel: Panel, steady: tuple[float, float], end: float, axis: bool) -> Any:
    scale, unit = _SCALES.get(panel.unit, (1.0, panel.unit))
    rows: list[Row] = [
        {"line": line.name, "at": round(float(at), 4), "value": float(f"{value * scale:.5g}")}
        for line in panel.lines
        for at, value in zip(line.seconds, line.value, strict=True)
    ]
    names = [line.name for line in panel.lines]
    x = alt.X(
        "at:Q",
        title="s" if axis else None,
        scale=alt.Scale(domain=[0, end], nice=False),
        axis=alt.Axis(grid=False, tickCount=8, labels=axis, ticks=axis),
    )
    share = panel.unit == "share"
    y = alt.Y(
        "value:Q",
        title=[panel.title, "" if share else unit] if unit and not share else panel.title,
        scale=alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=True, nice=True),
        axis=alt.Axis(
            format="%" if share else PLAIN, tickCount=3, titleAngle=0, titleAlign="right", titleAnchor="middle",
            titleX=-44, titleY=HEIGHT / 2 - 6,
        ),
    )  # fmt: skip
    colours = [palette.engine(place) for place in range(len(names))]
    hue = alt.Color(
        "line:N", sort=names, scale=alt.Scale(domain=names, range=colours),
        legend=alt.Legend(orient="right", title=None, labelFontSize=11, symbolType="stroke", rowPadding=1),
    )  # fmt: skip
    curves = alt.Chart(data(rows)).mark_line(strokeWidth=1.6, aria=False).encode(x=x, y=y, color=hue)
    edges = alt.Chart(data([{"at": at} for at in steady if 0 <= at <= end]))
    rule = edges.mark_rule(strokeDash=[3, 3], strokeWidth=1, color=palette.MUTED, aria=False).encode(x=x)
    return alt.layer(rule, curves).properties(width=WIDTH, height=HEIGHT)
