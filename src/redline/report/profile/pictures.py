"""Charts of a profile: where a step goes, attention over context, KV memory, the roofline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from redline.analyse.architecture import architecture
from redline.analyse.profile.classes import CLASSES
from redline.analyse.profile.record import Profile
from redline.analyse.roofline import Precision
from redline.report import palette
from redline.report.canvas import WIDTH, Drawing, data
from redline.report.charts import Chart, require, write_whole
from redline.report.draw_roofline import Dot, roofline
from redline.report.profile.tables import GAP, every, what
from redline.report.profile.timeline import COLOURS
from redline.store.ceilings import from_dict

UNITS = {"decode": "decode step", "prefill": "prefill"}


def pictures(profile: Profile) -> list[Chart]:
    """EnvironmentFault when the charts extra is missing."""
    require()
    drawn = [one for draw in (_where, _attention, _memory, _roofline) for one in draw(profile)]
    return [Chart(one.kind, profile.model, one.kind, one.title, one.alt, one.spec()) for one in drawn]


def write_pictures(profile: Profile, folder: Path, formats: Sequence[str] = ("svg", "png")) -> list[tuple[str, str]]:
    """(title, name of the sharper file) of each; the files are written into `folder`."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for chart in pictures(profile):
        for form in formats:
            write_whole(folder / f"{chart.name}.{form}", chart.png if form == "png" else chart.svg.encode())
        written.append((chart.title, f"{chart.name}.{formats[0]}"))
    return written


def _engine_colour(profile: Profile) -> Any:
    labels = [engine.label for engine in profile.engines]
    scale = alt.Scale(domain=labels, range=[palette.engine(place) for place in range(len(labels))])
    return alt.Color("engine:N", scale=scale, legend=alt.Legend() if len(labels) > 1 else None)


def _where(profile: Profile) -> Iterator[Drawing]:
    """Stacked bars, one for each engine, phase by phase."""
    order = {name: place for place, name in enumerate((*CLASSES, GAP))}
    for phase_name in ("decode", "prefill"):
        rows = [
            {"engine": engine.label, "where": what(phase), "class": name, "ms": us / 1e3, "order": order[name]}
            for engine, phase in every(profile)
            if phase.phase == phase_name and (part := phase.breakdown) is not None
            for name, us in {**part.by_class, GAP: part.gap_us}.items()
        ]
        if not rows:
            continue
        places = list(dict.fromkeys(str(row["where"]) for row in rows))
        header = alt.Header(labelAngle=0, labelAlign="left", labelAnchor="start", labelOrient="top", labelPadding=4)
        used = sorted({str(row["class"]) for row in rows}, key=lambda name: order[name])
        bars = (
            alt.Chart(data(rows), width=WIDTH, height={"step": 20})
            .mark_bar()
            .encode(
                x=alt.X("ms:Q", title=None, stack="zero", axis=alt.Axis(tickCount=5)),
                y=alt.Y("engine:N", title=None, sort=[engine.label for engine in profile.engines]),
                color=alt.Color("class:N", scale=alt.Scale(domain=used, range=[COLOURS[name] for name in used])),
                order=alt.Order("order:Q"),
            )
            .facet(row=alt.Row("where:N", title=None, sort=places, header=header), spacing=14)
            .resolve_scale(x="independent", y="independent")
        )
        title = f"Where a {UNITS[phase_name]} goes"
        remark = (f"ms of a {UNITS[phase_name]} as it was recorded; every panel has its own scale",)
        yield Drawing(f"where-{phase_name}", title, f"{title}, by class of kernel and engine", bars, remark)


def _attention(profile: Profile) -> Iterator[Drawing]:
    """Kernel time of attention over context, where there are several contexts."""
    for phase_name in ("decode", "prefill"):
        rows = [
            {
                "engine": engine.label,
                "context": phase.asked,
                "ms": us / 1e3,
                "series": f"{engine.label}, batch {phase.batch}",
            }
            for engine, phase in every(profile)
            if phase.phase == phase_name
            and phase.breakdown is not None
            and (us := phase.breakdown.by_class.get("attention", 0.0)) > 0
        ]
        if len({row["context"] for row in rows}) < 2:
            continue
        unit = UNITS[phase_name]
        lines = (
            alt.Chart(data(rows), width=WIDTH, height=240)
            .mark_line(point=True)
            .encode(
                x=alt.X("context:Q", title="tokens of context"),
                y=alt.Y("ms:Q", title=f"ms of attention per {unit}"),
                color=_engine_colour(profile),
                strokeDash=alt.StrokeDash("series:N", legend=None),
            )
        )
        title = f"Attention of a {unit}"
        yield Drawing(f"attention-{phase_name}", title, f"{title} over context, by engine", lines)


def _memory(profile: Profile) -> Iterator[Drawing]:
    """What was measured as points, the formula as lines behind them."""
    rows = [
        {
            "tokens": one.sequences * one.tokens,
            "MB": one.measured_bytes / 1e6,
            "formula": one.formula_bytes / 1e6 if math.isfinite(one.formula_bytes) else None,
            "engine": engine.label,
        }
        for engine in profile.engines
        for one in engine.memory
        if one.measured_bytes is not None
    ]
    if len(rows) < 2:
        return
    base = alt.Chart(data(rows), width=WIDTH, height=240)
    x = alt.X("tokens:Q", title="tokens held, all sequences together")
    lines = base.mark_line(color=palette.MUTED, strokeWidth=1.5).encode(
        x=x, y=alt.Y("formula:Q", title="KV cache, MB"), detail="engine:N"
    )
    dots = base.mark_point(size=70).encode(x=x, y="MB:Q", color=_engine_colour(profile))
    yield Drawing(
        "kv-memory",
        "KV cache: measured, and the formula",
        "KV memory over tokens, measured and computed",
        alt.layer(lines, dots),
        ("points: what the engine says that it holds; line: the formula",),
    )


def _roofline(profile: Profile) -> Iterator[Drawing]:
    shape = architecture(profile.config) if profile.config else None
    if shape is None or not profile.ceilings:
        return
    ceilings = from_dict(profile.ceilings)
    dots = [
        Dot(engine.label, phase.phase, phase.batch, phase.asked, phase.step_ms / 1e3, phase.intensity)
        for engine, phase in every(profile)
        if phase.intensity is not None
    ]
    made = roofline(shape, Precision(), ceilings, profile.dtype, dots)
    if made is not None:
        yield made
