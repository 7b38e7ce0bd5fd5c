"""Charts of what an engine costs before it answers: start-up time by phase, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from redline.report import palette
from redline.report.canvas import PLAIN, WIDTH, Drawing, Row, colour, data, text_of
from redline.report.model import ModelReport, Report

BAR = 30


def drawings(model: ModelReport, report: Report) -> Iterator[Drawing]:
    if any(start.startup_ms for engine in model.engines for start in engine.starts):
        yield _startup(model, report)
    rows = _memory_rows(model)
    if rows:
        yield _memory(rows, report)


def phases(startup_ms: dict[str, float]) -> dict[str, float]:
    """Phases without the total, in seconds; what no phase explains as `other`."""
    named = {phase: ms / 1000 for phase, ms in startup_ms.items() if phase != "total" and ms > 0}
    rest = startup_ms.get("total", 0.0) / 1000 - sum(named.values())
    return named | ({"other": rest} if rest > 0.005 * startup_ms.get("total", 0.0) / 1000 else {})


def _startup(model: ModelReport, report: Report) -> Drawing:
    rows: list[Row] = []
    totals: list[Row] = []
    for engine in model.engines:
        start = next((start for start in engine.starts if start.startup_ms), None)
        if start is None:
            continue
        at = 0.0
        for i, (phase, seconds) in enumerate(phases(start.startup_ms).items()):
            rows.append(
                {
                    "engine": engine.label, "phase": phase, "from": at, "to": at + seconds, "middle": at + seconds / 2,
                    "shade": 0.95 - 0.28 * (i % 2), "seconds": seconds,
                    "said": f"{engine.label}: {phase} {text_of(seconds, 's')}",
                }
            )  # fmt: skip
            at += seconds
        totals.append({"engine": engine.label, "to": at, "text": text_of(at, "s")})
    longest = max(row["to"] for row in totals)
    shown = [row["engine"] for row in totals]
    y = alt.Y("engine:N", sort=shown, title=None, axis=_names())
    x = alt.X("from:Q", title="s", scale=alt.Scale(domain=[0, longest * 1.12], nice=False), axis=alt.Axis(tickCount=6))
    bars = alt.Chart(data(rows)).mark_bar(height=BAR - 10, stroke=palette.BACKGROUND, strokeWidth=1).encode(
        x=x, x2="to:Q", y=y, color=colour(report, shown, legend=False), description="said:N",
        opacity=alt.Opacity("shade:Q", scale=None),
    )  # fmt: skip
    # a name is written where there is room for it
    room = [row for row in rows if row["seconds"] / longest * WIDTH > 6.5 * len(row["phase"])]
    names = alt.Chart(data(room)).mark_text(fontSize=10, color=palette.BACKGROUND, aria=False).encode(
        x="middle:Q", y=y, text="phase:N"
    )  # fmt: skip
    sums = alt.Chart(data(totals)).mark_text(align="left", dx=6, fontSize=11, color=palette.TEXT, aria=False).encode(
        x="to:Q", y=y, text="text:N"
    )  # fmt: skip
    chart = alt.layer(bars, names, sums).properties(width=WIDTH, height=alt.Step(BAR))
    said = "Start-up time of each engine from the process's start to its first answer, by phase"
    return Drawing("startup", "Start-up: from the process's start to its first answer, s", said, chart, ())


def _memory_rows(model: ModelReport) -> list[Row]:
    rows = []
    for foot in model.comparison.footprints:
        for name, kind in (("rss_bytes", "host memory"), ("gpu_memory_bytes", "GPU memory")):
            pooled = foot.numbers.get(name)
            if pooled is None:
                continue
            value = pooled.value / 1e9
            text = text_of(value, "GB")
            rows.append(
                {
                    "engine": foot.label,
                    "kind": kind,
                    "value": value,
                    "text": text,
                    "said": f"{foot.label}: {kind} {text}",
                }
            )
    return rows


def _memory(rows: list[Row], report: Report) -> Drawing:
    shown = list(dict.fromkeys(row["engine"] for row in rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    panels = [_bars([row for row in rows if row["kind"] == kind], shown, report, kind) for kind in kinds]
    chart: Any = alt.vconcat(*panels, spacing=14) if len(panels) > 1 else panels[0]
    said = "Peak memory of each engine's processes, in GB"
    return Drawing("memory", "Peak memory of the engine's processes, GB", said, chart, ())


def _bars(rows: list[Row], shown: list[str], report: Report, kind: str) -> Any:
    y = alt.Y("engine:N", sort=shown, title=None, axis=_names())
    most = max(row["value"] for row in rows)
    x = alt.X(
        "value:Q", title=f"{kind}, GB", scale=alt.Scale(domain=[0, most * 1.15], nice=False),
        axis=alt.Axis(tickCount=6, format=PLAIN),
    )  # fmt: skip
    base = alt.Chart(data(rows)).encode(x=x, y=y)
    bars = base.mark_bar(height=BAR - 10).encode(color=colour(report, shown, legend=False), description="said:N")
    texts = base.mark_text(align="left", dx=6, fontSize=11, color=palette.TEXT, aria=False).encode(text="text:N")
    return alt.layer(bars, texts).properties(width=WIDTH, height=alt.Step(BAR))


def _names() -> alt.Axis:
    return alt.Axis(labelColor=palette.TEXT, labelFontSize=12, labelLimit=200, ticks=False)
