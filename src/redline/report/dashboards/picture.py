"""A dashboard drawn by redline: the same panels and queries, without Grafana. Every picture says so in its head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redline.report import palette
from redline.report.charts import require
from redline.report.dashboards.board import Board, Panel

_COLUMNS, _WIDTH, _HEIGHT, _BETWEEN = 2, 460, 150, 70
MOST_LINES = 8
"""Of one panel; more cannot be told apart."""


@dataclass(frozen=True)
class Line:
    """`at` in Unix seconds; NaN in `values` is a gap."""

    name: str
    at: tuple[float, ...]
    values: tuple[float, ...]


Found = Mapping[Panel, Sequence[Line]]


def head(board: Board) -> str:
    return f"redline's rendering of dashboard “{board.title}”, version {board.version}: not Grafana"


def draw(board: Board, found: Found, span: tuple[float, float], source: str) -> dict[str, Any]:
    """The Vega-Lite of a whole dashboard. `span` in Unix seconds; EnvironmentFault without the charts extra."""
    require()
    import altair as alt

    rows = []
    for row in board.rows:
        charts = [_panel(panel, found.get(panel, ()), span) for panel in row.panels]
        pairs = [charts[at : at + _COLUMNS] for at in range(0, len(charts), _COLUMNS)]
        # flush: plots stand under each other, whatever the width of their numbers
        lines = [_apart(alt.hconcat(*pair, spacing=_BETWEEN, bounds="flush")) for pair in pairs]
        title = alt.TitleParams(row.title, anchor="start", fontSize=13, color=palette.TEXT, offset=8, dy=-2)
        rows.append(_apart(alt.vconcat(*lines, spacing=14)).properties(title=title))
    shown = " to ".join(f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}" for at in span)
    title = alt.TitleParams(
        head(board), subtitle=[f"Prometheus at {source}, {shown} UTC", board.text], anchor="start", fontSize=17,
        subtitleFontSize=11, color=palette.TEXT, subtitleColor=palette.MUTED, offset=20,
    )  # fmt: skip
    whole = _apart(alt.vconcat(*rows, spacing=30)).properties(title=title, padding=22)
    configured: dict[str, Any] = _look(whole).to_dict()
    return configured


def _apart(chart: Any) -> Any:
    """Every panel has its own colours and its own legend."""
    return chart.resolve_scale(color="independent").resolve_legend(color="independent")


def _look(chart: Any) -> Any:
    quiet = {"labelColor": palette.MUTED, "titleColor": palette.MUTED, "titleFontWeight": "normal"}
    return (
        chart.configure(
            background=palette.BACKGROUND, font="Inter, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
        )
        .configure_view(stroke=palette.LINE)
        .configure_axis(gridColor=palette.LINE, domain=False, tickColor=palette.LINE, labelFontSize=10, **quiet)
        .configure_legend(labelColor=palette.TEXT, labelFontSize=10, labelLimit=225, symbolSize=60)
    )


def _panel(panel: Panel, lines: Sequence[Line], span: tuple[float, float]) -> Any:
    import altair as alt

    shown, notes = sorted(lines, key=lambda line: line.name)[:MOST_LINES], [panel.text] if panel.text else []
    if len(lines) > MOST_LINES:
        notes.append(f"{MOST_LINES} of {len(lines)} series are shown")
    unit = f" ({panel.unit})" if panel.unit not in ("", "share") else ""
    title = alt.TitleParams(
        panel.title + unit, subtitle=notes or [" "], anchor="start", fontSize=12, fontWeight=600, color=palette.TEXT,
        subtitleColor=palette.MUTED, subtitleFontSize=10, offset=6,
    )  # fmt: skip
    if not any(math.isfinite(value) for line in shown for value in line.values):
        empty = alt.Chart(alt.InlineData(values=[{"text": "no data"}]))
        return empty.mark_text(color=palette.MUTED, fontSize=13).encode(text="text:N").properties(
            width=_WIDTH, height=_HEIGHT, title=title
        )  # fmt: skip
    return _lines(panel, shown, span).properties(width=_WIDTH, height=_HEIGHT, title=title)


def _lines(panel: Panel, shown: Sequence[Line], span: tuple[float, float]) -> Any:
    import altair as alt

    rows = [
        {"at": at * 1000, "value": value if math.isfinite(value) else None, "series": line.name}
        for line in shown
        for at, value in zip(line.at, line.values, strict=True)
    ]
    names = list(dict.fromkeys(line.name for line in shown))
    peak = max((value for line in shown for value in line.values if math.isfinite(value)), default=0.0)
    top = panel.most if panel.most is not None and peak <= panel.most else peak * 1.08 or 1.0
    colours = [palette.engine(place) for place in range(len(names))]
    time = alt.X(
        "at:T", title=None, scale=alt.Scale(type="utc", domain=[at * 1000 for at in span]),
        axis=alt.Axis(format="%H:%M:%S", tickCount=5, grid=False, labelOverlap=True),
    )  # fmt: skip
    form = "~s" if panel.unit.startswith("bytes") else "~%" if panel.unit == "share" else ",.3~r"
    value = alt.Y(
        "value:Q", title=None, scale=alt.Scale(domain=[0, top], nice=panel.most is None, clamp=True),
        axis=alt.Axis(format=form, tickCount=4),
    )  # fmt: skip
    legend = alt.Legend(title=None, orient="bottom", columns=2, offset=4)
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    return alt.Chart(alt.InlineData(values=rows)).mark_line(strokeWidth=1.6).encode(time, value, colour)
