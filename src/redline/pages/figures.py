"""What the charts of the pages are drawn from: numbers for `static/chart.js`, never more than a screen can show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redline.report import palette
from redline.report.model import Measured, ModelReport, Report, load_label, load_unit

Figure = dict[str, Any]
MOST = 1200
"""Points of a line: more would fall on the same pixels."""
LOADS = (
    ("output_tokens_per_s", "Output throughput", "tok/s", True),
    ("goodput_per_s", "Goodput under the SLO", "req/s", True),
    ("ttft_ms", "Time to first token", "ms", False),
    ("itl_ms", "Inter-token latency", "ms", False),
    ("e2e_ms", "End-to-end latency", "ms", False),
)
"""(metric, title, unit, whether it is one number and not p50 and p99)."""


def load_figures(model: ModelReport, report: Report) -> list[Figure]:
    """Over the load: throughput and latencies of every engine, with their intervals. None for a single load point."""
    points = model.comparison.points
    if len(points) < 2:
        return []
    made = [_over_load(model, report, *one) for one in LOADS if one[0] != "goodput_per_s" or report.promised]
    return [figure for figure in made if any(series["x"] for series in figure["series"])]


def _over_load(model: ModelReport, report: Report, metric: str, title: str, unit: str, single: bool) -> Figure:
    points = model.comparison.points
    series: list[dict[str, Any]] = []
    for engine in model.engines:
        for level in ("",) if single else ("p50", "p99"):
            name = f"{metric}.{level}" if level else metric
            rows = [(p.load, p.engine(engine.label)) for p in points]
            known = [(load, e, e.numbers[name]) for load, e in rows if e and math.isfinite(e.value(name))]
            series.append(
                {
                    "name": f"{engine.label} {level}".strip(), "colour": report.colours.get(engine.label, 0) % 8,
                    "dash": level == "p99", "dots": True,
                    "x": [load[1] for load, _, _ in known], "y": [n.value for _, _, n in known],
                    "low": [n.interval.low if n.interval else None for _, _, n in known],
                    "high": [n.interval.high if n.interval else None for _, _, n in known],
                    "hollow": [e.verdict.state != "valid" for _, e, _ in known],
                    "said": [f"{load_label(load)}: {e.verdict.state}" for load, e, _ in known],
                }
            )  # fmt: skip
    values = [point.load[1] for point in points]
    return {
        "title": title, "unit": unit,
        "x": {"title": load_unit([p.load for p in points]), "log": _wide(values), "loads": True},
        "zero": single, "log": not single and _wide([y for one in series for y in one["y"]], 30), "series": series,
        "note": "band: 95 % interval · hollow: not valid" + ("" if single else " · solid p50, dashed p99"),
    }  # fmt: skip


def _wide(values: Sequence[float], factor: float = 12) -> bool:
    """Whether a logarithmic axis shows them better."""
    known = [value for value in values if value > 0]
    return len(known) == len(values) > 2 and max(known) / min(known) > factor


def distribution_figures(measured: Iterable[tuple[str, int, Measured]]) -> list[Figure]:
    """Cumulative, of TTFT, ITL and E2E; `measured` are (name, colour, load point)."""
    found = []
    for metric, title in (("ttft_ms", "TTFT"), ("itl_ms", "ITL"), ("e2e_ms", "E2E")):
        series = [
            {"name": name, "colour": colour, "x": line.value, "y": line.share * 100, "step": True}
            for name, colour, one in measured
            if len((line := one.distributions[metric]).value) > 1
        ]  # fmt: skip
        if series:
            values = np.concatenate([one["x"] for one in series])
            log = bool((values > 0).all() and values.max() / max(values.min(), 1e-9) > 30)
            found.append(
                {"title": f"{title}: share at or below", "unit": "%", "x": {"title": "ms", "log": log}, "zero": True,
                 "most": 100, "series": series}
            )  # fmt: skip
    return found


def timeline_figures(measured: Measured, colour: int) -> list[Figure]:
    """Over the seconds of one load point, with its steady window."""
    line = measured.timeline
    bands = [{"from": line.steady[0], "to": line.steady[1], "name": "steady window"}]
    shown: tuple[tuple[str, str, tuple[tuple[str, Any, bool], ...]], ...] = (
        ("Output", "tok/s", (("tok/s", line.tokens_per_s, False),)),
        ("In flight", "requests", (("requests", line.in_flight, False),)),
        ("TTFT by arrival", "ms", (("p50", line.ttft_p50, False), ("highest", line.ttft_max, True))),
        ("ITL", "ms", (("p50", line.itl_p50, False), ("p99", line.itl_p99, True))),
    )
    return [
        {
            "title": title, "unit": unit, "x": {"title": "s"}, "zero": True, "bands": bands,
            "group": "timeline",
            "series": [
                {"name": name, "colour": colour, "dash": dash, "x": line.seconds, "y": values, "dots": True}
                for name, values, dash in lines
            ],
        }
        for title, unit, lines in shown
        if any(np.isfinite(values).any() for _, values, _ in lines)
    ]  # fmt: skip


def thin(x: NDArray[Any], y: NDArray[Any], most: int = MOST) -> tuple[NDArray[Any], NDArray[Any]]:
    """The lowest and the highest of every stretch: no spike is lost."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most // 2 + 1).astype(int)[:-1]
    filled = np.where(np.isnan(y), -np.inf, y)
    ends = np.append(edges[1:], len(x))
    keep = np.array(
        [
            at
            for a, b in zip(edges, ends, strict=True)
            for at in (a + int(np.argmin(y[a:b])), a + int(filled[a:b].argmax()))
        ]
    )
    keep = np.unique(keep)
    return x[keep], y[keep]


def place(report: Report, label: str) -> int:
    """The colour of an engine, the same in every chart and table."""
    return report.colours.get(label, 0) % len(palette.ENGINES)
