"""The report as one HTML file that needs nothing else: no network, no folder beside it, light and dark."""

from __future__ import annotations

import itertools
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from redline.analyse.comparison import EnginePoint, ModelComparison, Ratio
from redline.analyse.percentile import LEVELS
from redline.analyse.summary import PointSummary
from redline.errors import EnvironmentFault
from redline.report import columns as table
from redline.report import evidence, palette
from redline.report.charts import Chart, charts
from redline.report.headline import Claim, caveats, claims
from redline.report.model import EngineReport, Measured, ModelReport, Report, RunInfo, load_label
from redline.report.numbers import (
    NONE,
    STATE_MARK,
    band,
    data_size,
    metric_name,
    number,
    percentile_text,
    ratio_text,
)

MOST_CHART_BYTES = 2_400_000
"""Charts beyond this are left out of the page, which says so; they can still be written as files."""

OUTCOME = {"better": "better", "worse": "worse", "no detectable difference": "same", "unknown": "unknown"}
MOST_REACH = 1000.0
"""Ratios further from 1 are drawn at the edge of the axis; their text is exact."""
_PAGE = Path(__file__).parent / "page"


def render_html(report: Report, drawn: Sequence[Chart] | None = None) -> str:
    """The whole page. Without the charts extra it has tables only, and says what would bring the charts.

    `drawn` saves drawing the charts again.
    """
    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pictures, remark = _pictures(report, drawn)
    return environment.get_template("report.html.j2").render(
        style=Markup((_PAGE / "report.css").read_text(encoding="utf-8")),
        script=Markup("".join((_PAGE / name).read_text(encoding="utf-8") for name in ("copy.js", "report.js"))),
        light=_declared(0),
        dark=_declared(1),
        charts_remark=remark,
        **views(report, pictures),
    )


def views(report: Report, pictures: Sequence[tuple[Chart, Markup]] = ()) -> dict[str, Any]:
    """What a page shows of the report, as its templates take it."""
    return {
        "report": report,
        "claims": [_claim(claim) for claim in claims(report)],
        "caveats": caveats(report),
        "slo": table.slo_text(report),
        "models": [_model(model, report, pictures) for model in report.models],
        "definitions": table.definitions_used(report),
        "runs": [_run(run) for run in report.runs],
        "mark": STATE_MARK,
    }


def _declared(theme: int) -> Markup:
    return Markup("".join(f"{name}:{colours[theme]};" for name, colours in palette.variables().items()))


def _claim(claim: Claim) -> dict[str, Any]:
    ratios = (claim.throughput, *claim.latencies)
    shown = [(metric_name(r.metric), r) for r in ratios if r is not None and not math.isnan(r.value)]
    reach = max([2.0, *(edge for _, ratio in shown for edge in _edges(ratio))])
    return {
        "claim": claim,
        "outcome": OUTCOME[claim.outcome],
        "big": ratio_text(claim.throughput, interval=False),
        "what": metric_name(claim.throughput.metric if claim.throughput else "output_tokens_per_s"),
        "rows": [_forest(name, ratio, reach) for name, ratio in shown],
        "scale": [(_at(factor, reach), f"{factor:g}×") for factor in _marks(reach) if _inside(factor, reach)],
    }


def _marks(reach: float) -> tuple[float, ...]:
    """Factors to write under the axis: few enough that they never touch."""
    return (0.001, 0.01, 0.1, 1, 10, 100, 1000) if reach > 8 else (0.125, 0.25, 0.5, 1, 2, 4, 8)


def _edges(ratio: Ratio) -> Iterator[float]:
    """How far from 1 its ends lie, as factors."""
    for value in (ratio.value, *((ratio.interval.low, ratio.interval.high) if ratio.interval else ())):
        if 0 < value < math.inf:
            yield min(max(value, 1 / value), MOST_REACH)


def _forest(name: str, ratio: Ratio, reach: float) -> dict[str, Any]:
    """One row of the interval picture: positions in percent on a logarithmic axis from 1/reach to reach."""

    low, high = (ratio.interval.low, ratio.interval.high) if ratio.interval else (ratio.value, ratio.value)
    return {
        "name": name, "text": ratio_text(ratio), "outcome": OUTCOME[ratio.outcome], "note": ratio.note,
        "left": _at(low, reach), "width": round(_at(high, reach) - _at(low, reach), 2), "at": _at(ratio.value, reach),
    }  # fmt: skip


def _at(value: float, reach: float) -> float:
    """Where a ratio lies on the axis, in percent."""
    held = min(max(value, 1 / reach), reach)
    return round(50 + 50 * math.log(held) / math.log(reach * 1.08), 2)


def _inside(factor: float, reach: float) -> bool:
    return 1 / reach <= factor <= reach


def _model(model: ModelReport, report: Report, pictures: Sequence[tuple[Chart, Markup]]) -> dict[str, Any]:
    comparison = model.comparison
    mine = [(chart, picture) for chart, picture in pictures if chart.model == model.name]
    return {
        "name": model.name,
        "reference": comparison.reference,
        "columns": table.columns(report),
        "points": [_point(found, point.load, report) for point in comparison.points for found in point.engines],
        "first": {(load_label(point.load), point.engines[0].label): len(point.engines) for point in comparison.points},
        "ratio_heads": [table.RATIO_HEADS[name] for name in table.ratio_columns(report)],
        "ratios": list(_ratios(comparison, report)),
        "footprint": _footprint(model),
        "reasons": table.reasons(comparison),
        "not_run": [(e.label, e.status, e.error.removeprefix("skipped: ")) for e in model.engines if not e.points],
        "charts": mine,
        "wide": _wide([chart.kind for chart, _ in mine]),
        "drawn": [(engine.label, _place(report, engine.label)) for engine in model.engines if engine.points],
        "evidence": [
            _evidence(engine, measured, load_label(load), len(found), report)
            for load in (point.load for point in comparison.points)
            for engine in model.engines
            if (found := engine.points.get(load))
            for measured in found
        ],
        "engines": [_engine(engine, report) for engine in model.engines],
    }


def _wide(kinds: list[str]) -> set[str]:
    """Charts of several panels take a whole row; so does the last single one before them when it is left alone."""
    panels = {kind for kind in kinds if kind.endswith(("-distribution", "-timeline"))}
    single = list(itertools.takewhile(lambda kind: kind not in panels, kinds))
    return panels | set(single[-1:] if len(single) % 2 else ())


def _point(found: EnginePoint, load: tuple[str, float], report: Report) -> dict[str, Any]:
    cells = []
    for column in table.columns(report):
        pooled = found.numbers.get(column.name)
        cells.append(
            {
                "text": table.cell(found, column),
                "band": band(pooled.interval) if pooled else "",
                "shaky": table.shaky(found, column),
                "title": "; ".join(t for t in (table.spread_text(pooled), pooled.note) if t) if pooled else "",
            }
        )
    return {
        "load": load_label(load), "label": found.label, "place": _place(report, found.label), "cells": cells,
        "failed": table.failed_text(found), "any_failed": bool(found.counts.get("failed")), "verdict": found.verdict,
    }  # fmt: skip


def _ratios(comparison: ModelComparison, report: Report) -> Iterator[dict[str, Any]]:
    for point in comparison.points:
        for found in point.engines:
            if not found.ratios:
                continue
            cells = []
            for name in table.ratio_columns(report):
                ratio = found.ratios.get(name)
                outcome = OUTCOME[ratio.outcome] if ratio else "unknown"
                text = table.arrow(ratio) + ratio_text(ratio)
                cells.append({"text": text, "outcome": outcome, "note": ratio.note if ratio else ""})
            place = _place(report, found.label)
            first = next(e.label for e in point.engines if e.ratios) == found.label
            yield {"first": first, "load": load_label(point.load), "label": found.label, "place": place, "cells": cells}


def _footprint(model: ModelReport) -> dict[str, Any]:
    feet = {foot.label: foot for foot in model.comparison.footprints}
    shown = [name for name in table.FOOTPRINT if any(name in foot.numbers for foot in feet.values())]
    rows = []
    for engine in model.engines:
        foot = feet.get(engine.label)
        cells = []
        for name in shown:
            ratio = foot.ratios.get(name) if foot else None
            text = table.footprint_text(foot.numbers.get(name) if foot else None)
            said = table.arrow(ratio) + ratio_text(ratio, interval=False) if ratio else ""
            cells.append((text, said, OUTCOME[ratio.outcome] if ratio else "", ratio.note if ratio else ""))
        rows.append((engine.label, f"{engine.kind} {engine.version}".strip(), cells))
    return {"heads": [table.FOOTPRINT_HEADS[name] for name in shown], "rows": rows}


PERCENTILES = ("p50", "p90", "p95", "p99")
LINES = (
    ("TTFT, from the intended start", "ttft_ms"), ("… successes only", "ttft_ms.ok"),
    ("… from the actual send", "ttft_ms.sent"), ("ITL", "itl_ms"), ("TPOT", "tpot_ms"),
    ("E2E, from the intended start", "e2e_ms"), ("… successes only", "e2e_ms.ok"),
    ("… from the actual send", "e2e_ms.sent"),
)  # fmt: skip
FIGURES = (
    "output_tokens_per_s", "input_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s",
    "slo_attainment", "failed_share", "cut_off_share", "in_flight", "sent_per_s", "prompt_tokens", "output_tokens",
    "cached_share",
)  # fmt: skip


def _evidence(engine: EngineReport, measured: Measured, load: str, repeats: int, report: Report) -> dict[str, Any]:
    summary = measured.summary
    lines = [
        (name, [(_percentile(summary, key, p), _said(measured, f"{key}.{p}")) for p in PERCENTILES])
        for name, key in LINES
        if not (key.endswith(".ok") and not summary.counts["failed"]) and not math.isnan(summary.value(f"{key}.p50"))
    ]
    figures = [
        (name, _figure(measured, name), _said(measured, name), summary.findings[name].definition)
        for name in FIGURES
        if name in summary.findings and not math.isnan(summary.value(name))
    ]
    return {
        "engine": engine.label, "place": _place(report, engine.label), "load": load, "measured": measured,
        "repeat": measured.again if repeats > 1 else "", "summary": summary,
        "counts": evidence.counts_text(summary), "window": evidence.window_text(measured),
        "chunks": evidence.chunks_text(summary) if summary.tokens_per_chunk else "none",
        "sources": evidence.tally_text(summary.token_sources) if summary.token_sources else "nobody",
        "stamps": evidence.tally_text(summary.stamps) if summary.stamps else "nobody",
        "lines": lines, "figures": figures, "percentiles": PERCENTILES,
        "proofs": [(p.name, f"{number(p.value)} {p.unit}", p.sql) for p in evidence.proofs(measured)],
    }  # fmt: skip


def _percentile(summary: PointSummary, key: str, name: str) -> str:
    found = summary.findings.get(f"{key}.{name}")
    return NONE if found is None else percentile_text(found.value, LEVELS[name], found.of)


def _figure(measured: Measured, name: str) -> str:
    finding = measured.summary.findings[name]
    if finding.unit == "share":
        return f"{finding.value:.1%}"
    return f"{number(finding.value)} {finding.unit}"


def _said(measured: Measured, name: str) -> str:
    found = measured.summary.findings.get(name)
    if found is None or found.interval is None:
        return ""
    if found.unit == "share":
        return f"{found.interval.low:.1%}–{found.interval.high:.1%}"
    return band(found.interval)


def _engine(engine: EngineReport, report: Report) -> dict[str, Any]:
    flags = engine.asked.get("flags") or {}
    starts = []
    for start in engine.starts:
        phases = [(phase, number(ms / 1000)) for phase, ms in start.startup_ms.items()]
        starts.append({"start": start, "phases": phases, "memory": data_size(start.rss_bytes)})
    return {
        "engine": engine, "place": _place(report, engine.label), "starts": starts,
        "asked": [(name, _plain(value)) for name, value in flags.items()],
        "resolved": sorted(engine.flags.items()),
    }  # fmt: skip


def _plain(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _run(run: RunInfo) -> dict[str, Any]:
    return {
        "run": run,
        "box": evidence.box_line(run.provenance),
        "box_rows": evidence.box_rows(run.provenance),
        "command": shlex.join(run.argv),
        "took": f"{number(run.duration_s)} s" if run.duration_s is not None else "unknown",
    }


def _place(report: Report, label: str) -> int:
    return report.colours.get(label, 0) % len(palette.ENGINES)


def _pictures(report: Report, drawn: Sequence[Chart] | None) -> tuple[list[tuple[Chart, Markup]], str]:
    """Charts as inline SVG, and what there is to say about those that are not there."""
    try:
        made = charts(report, svg=True) if drawn is None else drawn
    except EnvironmentFault as fault:
        return [], f"No charts: {fault.why}. {fault.fix} brings them."
    pictures: list[tuple[Chart, Markup]] = []
    size = 0
    for i, chart in enumerate(made):
        picture = themed(chart.svg, f"c{i}")
        size += len(picture)
        if size > MOST_CHART_BYTES:
            return pictures, f"{len(made) - len(pictures)} of {len(made)} charts are left out to keep the page small."
        pictures.append((chart, Markup(picture)))
    return pictures, ""


def themed(picture: str, prefix: str) -> str:
    """An SVG for inlining: its colours as CSS variables, its ids its own, its size left to the page."""
    body = picture[picture.index("<svg") :]
    for name, (light, _) in palette.variables().items():
        body = re.sub(re.escape(light), f"var({name})", body, flags=re.IGNORECASE)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    return re.sub(r'^<svg([^>]*?) width="([\d.]+)" height="([\d.]+)"', r'<svg\1 style="max-width:\2px"', body, count=1)
