"""The stall timeline: what was lost over time, and below it when each cause was at work. Needs Altair."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from redline.analyse.explain.explanation import ALWAYS_ON, BLAMED, NEVER_ON
from redline.report import palette
from redline.report.canvas import PLAIN, Drawing, Row, data
from redline.report.explain.read import PointExplained
from redline.store.requests import Bools

WIDTH, HEIGHT, LANE = 620, 110, 17
SLICES = 620
MOST_LANES = 10
AT_WORK = 0.3
"""Degree from which a cause is drawn."""


def drawing(point: PointExplained) -> Drawing:
    found = point.explanation
    end = found.grid.size * found.grid.bucket_ns / 1e9
    x = alt.X("at:Q", title=None, scale=alt.Scale(domain=[0, end], nice=False), axis=alt.Axis(grid=False, labels=False))
    curve = (
        alt.Chart(data(_lost(point)))
        .mark_area(interpolate="step-after", color=palette.ALARM, opacity=0.85, aria=False)
        .encode(
            x=x,
            y=alt.Y("value:Q", title="lost", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=3)),
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    lanes, names = _lanes(point)
    parts = [curve]
    if lanes:
        parts.append(_gantt(lanes, names, end))
    chart = alt.vconcat(*parts, spacing=6).resolve_scale(color="independent")
    notes = ("share of streaming time beyond the expected step · below: when a cause was at work · seconds",)
    title = f"Time lost and what was at work: {point.label}"
    return Drawing(f"explain-{point.point.id}", title, title, chart, notes)


def _gantt(lanes: list[Row], names: list[str], end: float) -> Any:
    x = alt.X(
        "from:Q", title="s", scale=alt.Scale(domain=[0, end], nice=False), axis=alt.Axis(grid=False, format=PLAIN)
    )
    colours = alt.Scale(domain=["blamed", "not blamed"], range=[palette.engine(0), palette.MUTED])
    return (
        alt.Chart(data(lanes))
        .mark_bar(height=LANE - 5, aria=False)
        .encode(
            x=x,
            x2="to:Q",
            y=alt.Y("cause:N", sort=names, title=None, scale=alt.Scale(domain=names), axis=alt.Axis(labelLimit=260)),
            color=alt.Color("verdict:N", scale=colours, legend=alt.Legend(orient="bottom")),
        )
        .properties(width=WIDTH, height=LANE * len(names))
    )


def _lost(point: PointExplained) -> list[Row]:
    """The mean of each slice, of which there are as many as pixels."""
    lost, grid = point.explanation.lost, point.explanation.grid
    wide = max(1, -(-len(lost) // SLICES))
    padded = np.pad(lost, (0, -len(lost) % wide), mode="edge")
    means = padded.reshape(-1, wide).mean(axis=1)
    step = wide * grid.bucket_ns / 1e9
    return [{"at": round(place * step, 4), "value": round(float(mean), 4)} for place, mean in enumerate(means)]


def _lanes(point: PointExplained) -> tuple[list[Row], list[str]]:
    found = point.explanation
    by_key = {one.cause.key: one.level >= AT_WORK for one in found.shown}
    rows: list[Row] = []
    names: list[str] = []
    shown = [one for one in found.blames if one.verdict not in (NEVER_ON, ALWAYS_ON)][:MOST_LANES]
    for one in shown:
        name = f"{one.cause.key} ({one.cause.family})"
        names.append(name)
        verdict = "blamed" if one.verdict == BLAMED else "not blamed"
        for begin, stop in _stretches(by_key[one.cause.key]):
            seconds = found.grid.bucket_ns / 1e9
            rows.append(
                {"cause": name, "verdict": verdict, "from": round(begin * seconds, 3), "to": round(stop * seconds, 3)}
            )
    return rows, names


def _stretches(active: Bools) -> list[tuple[int, int]]:
    """Runs of buckets, those next to each other put together."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], active, [False])).astype(np.int8)))
    found: list[tuple[int, int]] = []
    for begin, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if found and begin - found[-1][1] <= 1:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((begin, stop))
    return found
