"""What all charts share: the look, the axes, the marks of engines. Needs Altair, so only `charts` imports it, late."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import altair as alt
import orjson
from altair.utils.schemapi import debug_mode

from redline.analyse.comparison import Load
from redline.report import palette
from redline.report.model import Report, load_unit
from redline.report.numbers import number

WIDTH, HEIGHT = 470, 260
SMALL_WIDTH, SMALL_HEIGHT = 250, 170
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
BAD = ("client-bound", "invalid")
PLAIN = ",.3~r"  # 1,200 and not 1.2k
Row = dict[str, Any]


@dataclass(frozen=True)
class Drawing:
    """A chart before it has a model and a file name. `notes` say how to read it."""

    kind: str
    title: str
    alt: str
    chart: Any
    notes: tuple[str, ...] = ()

    def spec(self) -> dict[str, Any]:
        """Vega-Lite with the title and the look."""
        title = alt.TitleParams(self.title, subtitle=list(self.notes), anchor="start", offset=12)
        return finished(self.chart, title=title, background=palette.BACKGROUND, padding=14)


def finished(chart: Any, **properties: Any) -> dict[str, Any]:
    """Vega-Lite of a whole chart with these properties and the look of all charts."""
    whole = chart.copy(deep=False)
    for name, value in {**properties, "config": _look()}.items():
        setattr(whole, name, value)
    found: dict[str, Any] = whole.to_dict(validate=False)
    return found


def unchecked() -> AbstractContextManager[None]:
    """Altair holds every piece of a chart against its schema, at most of the time that a chart takes. Ours say the same
    words whatever was measured: tests hold them against the schema."""
    return debug_mode(False)


def _look() -> Any:
    quiet: dict[str, Any] = {"labelColor": palette.MUTED, "titleColor": palette.MUTED, "titleFontWeight": "normal"}
    return alt.Config(
        font=FONT,
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            gridColor=palette.LINE, domain=False, tickColor=palette.LINE, labelFontSize=11, titleFontSize=11,
            titlePadding=8, labelPadding=6, **quiet,
        ),
        title=alt.TitleConfig(
            color=palette.TEXT, fontSize=14, fontWeight=600, subtitleColor=palette.MUTED, subtitleFontSize=11,
            subtitlePadding=6,
        ),
        legend=alt.LegendConfig(
            orient="top", title=None, labelColor=palette.TEXT, labelFontSize=12, symbolSize=80, offset=8, padding=0,
            symbolStrokeWidth=2, symbolOpacity=1, labelLimit=220, columnPadding=20,
        ),
        header=alt.HeaderConfig(title=None, labelColor=palette.TEXT, labelFontSize=12, labelFontWeight=600),
    )  # fmt: skip


def data(rows: Iterable[Row]) -> Any:
    """As one JSON text: Altair copies and checks every piece of a chart many times, and a text costs it nothing."""
    return alt.InlineData(values=orjson.dumps(list(rows)).decode(), format=alt.JsonDataFormat(type="json"))


def colour(report: Report, shown: Sequence[str], legend: bool = True) -> Any:
    """Colour of the engine, the same in every chart."""
    scale = alt.Scale(domain=list(shown), range=[palette.engine(report.colours[label]) for label in shown])
    return alt.Color("engine:N", scale=scale, legend=alt.Legend() if legend and len(shown) > 1 else None)


def shape(report: Report, shown: Sequence[str]) -> Any:
    """Shape of the engine's points, for readers who see no colours."""
    scale = alt.Scale(domain=list(shown), range=[palette.shape(report.colours[label]) for label in shown])
    return alt.Shape("engine:N", scale=scale, legend=alt.Legend() if len(shown) > 1 else None)


def load_axis(loads: Sequence[Load]) -> Any:
    """Clients or requests per second; logarithmic from three points that span more than a factor of four."""
    values = sorted({value for _, value in loads})
    titles = {"clients": "concurrent clients", "req/s": "requests per second asked", "speed": "trace, times as fast"}
    title = titles.get(load_unit(loads), "load: clients, requests per second or speed")
    wide = len(values) > 2 and values[-1] > 4 * values[0]
    scale = alt.Scale(type="log", base=2, nice=False) if wide else alt.Scale(zero=False, nice=False, padding=12)
    axis = alt.Axis(values=values, format="~g", grid=False, tickSize=5, ticks=True, labelOverlap=True, labelFlush=False)
    return alt.X("load:Q", title=title, scale=scale, axis=axis)


@dataclass(frozen=True)
class Ruler:
    """One axis for several fields that share it."""

    title: str | None
    scale: alt.Scale
    axis: alt.Axis
    logarithmic: bool = False

    def y(self, field: str = "value") -> Any:
        return alt.Y(f"{field}:Q", title=self.title, scale=self.scale, axis=self.axis)

    def x(self, field: str = "value") -> Any:
        return alt.X(f"{field}:Q", title=self.title, scale=self.scale, axis=self.axis)


def ruler(title: str | None, values: Iterable[float], *, zero: bool = False) -> Ruler:
    """Logarithmic, with ticks at 1, 2 and 5, for values that span more than a factor of four; else from 0."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if zero or low <= 0 or high < 4 * low:
        return Ruler(title, alt.Scale(zero=True, nice=True), alt.Axis(format=PLAIN, tickCount=5, labelFlush=False))
    low, high = low / 1.2, high * 1.2
    scale = alt.Scale(type="log", domain=[low, high], nice=False, clamp=True)
    return Ruler(
        title, scale, alt.Axis(values=ticks(low, high), format=PLAIN, labelOverlap=True, labelFlush=False), True
    )


def ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … inside [low, high]; only powers of ten when those are enough."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**e for e in exponents]
    steps = (1,) if sum(low <= value <= high for value in tens) > 4 else (1, 2, 5)
    found = [step * ten for ten in tens for step in steps]
    return [float(f"{value:.3g}") for value in found if low <= value <= high]


def some_loads(loads: Sequence[Load], most: int = 6) -> list[Load]:
    """At most `most` of them: the ends, and evenly between."""
    if len(loads) <= most:
        return list(loads)
    picked = {round(i * (len(loads) - 1) / (most - 1)) for i in range(most)}
    return [loads[i] for i in sorted(picked)]


def text_of(value: float, unit: str) -> str:
    return f"{number(value)} {unit}"
