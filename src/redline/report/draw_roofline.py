"""The roofline: FLOP/s reached over FLOPs per byte, under what the card was measured to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from redline.analyse.architecture import Architecture
from redline.analyse.roofline import Limits, Precision, decode, linear_flip, prefill, whole_flip
from redline.report import palette
from redline.report.canvas import WIDTH, Drawing, data
from redline.report.model import ModelReport, Report
from redline.report.numbers import number
from redline.store.ceilings import Ceilings

STEPS = 60
HEIGHT = 280
LETTER_PX, LINE_PX = 6.0, 13.0
"""Of a label."""


@dataclass(frozen=True)
class Dot:
    """One measured step of `cards` that share its work. `intensity` None: from the architecture."""

    engine: str
    phase: str
    batch: float
    context: float
    step_s: float
    intensity: float | None = None
    cards: int = 1


def roofline(
    model: Architecture,
    precision: Precision,
    ceilings: Ceilings,
    dtype: str,
    dots: Sequence[Dot],
    colours: Mapping[str, str] = {},
) -> Drawing | None:
    """None when the card has no ceiling for this type, or there is no dot."""
    found = ceilings.flops_of(dtype)
    placed = [row for dot in dots if (row := _row(dot, model, precision)) is not None]
    if found is None or not placed:
        return None
    limits = Limits(ceilings.read, found[0])
    low = min(0.25, *(row["intensity"] / 2 for row in placed))
    high = max(limits.ridge * 8, *(row["intensity"] * 2 for row in placed))
    x = alt.X("intensity:Q", title="FLOPs per byte", scale=alt.Scale(type="log", domain=[low, high], nice=False))
    least = min(limits.read * low / 1e12, *(row["tflops"] for row in placed))
    most = max(limits.flops / 1e12, *(row["tflops"] for row in placed))
    heights = alt.Scale(type="log", domain=[least / 1.5, most * 1.5], nice=False)
    y = alt.Y("tflops:Q", title="TFLOP/s", scale=heights, axis=alt.Axis(format="~g"))
    _name(placed, WIDTH / math.log10(high / low), HEIGHT / math.log10(most / least * 2.25))
    chart = alt.layer(*_roof(limits, low, high, x, y), *_dots(placed, colours, x, y))
    contexts = [dot.context for dot in dots if dot.phase == "decode"]
    return Drawing(
        "roofline",
        f"Roofline of {ceilings.card}",
        f"FLOP/s reached over FLOPs per byte, under the roof of {ceilings.card}",
        chart.properties(width=WIDTH, height=HEIGHT),
        tuple(roof_notes(model, precision, limits, found[1], contexts)),
    )


def _roof(limits: Limits, low: float, high: float, x: Any, y: Any) -> list[Any]:
    points = [low * (high / low) ** (place / STEPS) for place in range(STEPS + 1)]
    roof = [{"intensity": at, "tflops": min(limits.flops, at * limits.read) / 1e12} for at in (*points, limits.ridge)]
    ridge = alt.Chart(data([{"intensity": limits.ridge}]))
    return [
        ridge.mark_rule(color=palette.LINE, strokeDash=[4, 3]).encode(x="intensity:Q"),
        alt.Chart(data(roof)).mark_line(color=palette.MUTED, strokeWidth=2).encode(x=x, y=y),
    ]


def _dots(placed: Sequence[dict[str, Any]], colours: Mapping[str, str], x: Any, y: Any) -> list[Any]:
    labels = list(dict.fromkeys(str(row["engine"]) for row in placed))
    hues = [colours.get(label, palette.engine(place)) for place, label in enumerate(labels)]
    scale = alt.Scale(domain=labels, range=hues)
    kinds = [kind for kind in ("decode", "prefill") if any(row["phase"] == kind for row in placed)]
    shapes = alt.Scale(domain=kinds, range=["circle", "square"][: len(kinds)])
    base = alt.Chart(data(placed))
    marks = base.mark_point(filled=True, size=80, opacity=0.9).encode(
        x=x,
        y=y,
        color=alt.Color("engine:N", scale=scale, legend=alt.Legend() if len(labels) > 1 else None),
        shape=alt.Shape("phase:N", scale=shapes, legend=alt.Legend() if len(kinds) > 1 else None),
    )
    names = base.mark_text(dx=8, align="left", fontSize=10, color=palette.MUTED).encode(x=x, y=y, text="text:N")
    return [marks, names]


def _name(placed: Sequence[dict[str, Any]], across: float, up: float) -> None:
    """Takes the labels away that would lie over another: of dots close together the highest keeps its own. `across` and
    `up`: pixels of a decade."""
    kept: list[tuple[float, float, float]] = []
    for row in sorted(placed, key=lambda row: -row["tflops"]):
        x, y = across * math.log10(row["intensity"]), up * math.log10(row["tflops"])
        wide = LETTER_PX * len(row["text"])
        if any(x < other + width and other < x + wide and abs(y - above) < LINE_PX for other, above, width in kept):
            row["text"] = ""
        else:
            kept.append((x, y, wide))


def _row(dot: Dot, model: Architecture, precision: Precision) -> dict[str, Any] | None:
    cost = (decode if dot.phase == "decode" else prefill)(model, precision, dot.batch, dot.context)
    if not dot.step_s > 0 or not cost.flops:
        return None
    batch = f"{dot.batch:.3g}" if dot.batch < 99.95 else f"{dot.batch:,.0f}"
    return {
        "engine": dot.engine,
        "phase": dot.phase,
        "intensity": dot.intensity if dot.intensity is not None else cost.intensity,
        "tflops": cost.flops / dot.step_s / dot.cards / 1e12,  # of one card, whose roof is drawn
        "text": f"{batch} × {dot.context:,.0f}",
    }


def roof_notes(
    model: Architecture, precision: Precision, limits: Limits, dtype: str, contexts: Sequence[float]
) -> list[str]:
    """How to read it, and where decoding turns from memory-bound to compute-bound."""
    flip = linear_flip(model, precision, limits)
    first = f"reading {limits.read / 1e12:.3g} TB/s, {dtype} {number(limits.flops / 1e12)} TFLOP/s: the ridge is at"
    notes = [f"{first} {limits.ridge:,.0f} FLOPs per byte"]
    text = "matrix products of a decode step are compute-bound from batch"
    notes.append(
        f"{text} {flip:,} on" if flip is not None else "matrix products of a decode step never are compute-bound"
    )
    for context in sorted({round(one) for one in contexts})[:1]:
        whole = whole_flip(model, precision, limits, context)
        where = f"from batch {whole:,} on" if whole is not None else "at no batch: the KV cache grows with the batch"
        notes.append(f"the whole step at context {context:,}: {where}")
    return [*notes, "labels are batch × context; of dots close together one has a label"]


def drawings(model: ModelReport, report: Report) -> list[Drawing]:
    """The load points of a run under the roof of its card, where config and ceilings are known."""
    from redline.report.roofline import placed, roof_of

    dots, chosen = [], None
    for engine in model.engines:
        roof = roof_of(model, engine, report.runs)
        if roof is None or roof.ceilings is None:
            continue
        chosen = chosen or roof
        for one in placed(engine, roof):
            batch = max(1.0, one.batch / roof.groups)
            intensity = decode(roof.shape, roof.precision, batch, one.context).intensity
            dots.append(Dot(one.engine, "decode", batch, one.context, one.step_s, intensity, roof.cards))
    if chosen is None or chosen.ceilings is None:
        return []
    colours = {label: palette.engine(place) for label, place in report.colours.items()}
    made = roofline(chosen.shape, chosen.precision, chosen.ceilings, chosen.dtype, dots, colours)
    return [made] if made is not None else []
