"""What each engine costs at each load point and at the SLO, idle time and energy beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from redline.analyse.comparison import EnginePoint, Load
from redline.analyse.cost import Cost, best_at_slo, costs_of, energy_joules, idle_share
from redline.report.model import EngineReport, Measured, ModelReport, load_label
from redline.report.numbers import NONE, band, number
from redline.report.section import Section
from redline.spec.price import PriceSpec
from redline.store.read import Reader
from redline.store.rows import PointRow, RunRow

_AROUND_NS = 5_000_000_000
"""Power before and after the window too: a sampler that looks rarely has no look at its very ends."""
HEADS = (
    "model", "engine", "load", "per 1M output tokens", "per 1M input tokens", "per 1,000 requests", "idle",
    "energy per output token",
)  # fmt: skip


def cost_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None without a price."""
    prices = {PriceSpec.model_validate(row.experiment.get("price") or {}) for row in rows}
    priced = [price for price in prices if price.per_second is not None]
    if not priced:
        return None
    if len(prices) > 1:
        return Section("cost", "Cost", notes=("these runs name different prices: look at them one by one",), brief=True)
    price, slo = priced[0], rows[0].experiment.get("slo") or {}
    has_slo = any(slo.get(name) for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"))
    points = {point.id: point for row in rows for trial in row.trials for point in trial.points}
    lines: list[tuple[str, ...]] = []
    for model in models:
        for engine in model.engines:
            found = _points(model, engine.label)
            best = best_at_slo(found, float(slo.get("attainment", 0.95))) if has_slo else None
            lines += _lines(reader, model.name, engine, found, best, price, points)
            if has_slo and best is None and found:
                lines.append(
                    (model.name, engine.label, "at the SLO", *["no load point keeps it for sure"], *[NONE] * 4)
                )
    per_hour = f"{price.gpu_hour:g} {price.currency} per hour × {price.gpus}"
    return Section(
        "cost", f"Cost in {price.currency}", HEADS, tuple(lines), tuple(_notes(per_hour, has_slo)), brief=True
    )


def _notes(per_hour: str, has_slo: bool) -> Iterator[str]:
    yield f"price: {per_hour}, as given with the experiment; [ ] is the 95 % interval of the rate it rests on"
    yield "each column is the whole bill over that one count: they do not add up"
    if has_slo:
        yield "★ cheapest point that keeps the SLO: lower 95 % Wilson bound of the good share at or above the promise"
    else:
        yield "no SLO is set, so no point can be called good enough: --slo-ttft, --slo-itl, …"


def _points(model: ModelReport, label: str) -> dict[Load, EnginePoint]:
    found = {point.load: point.engine(label) for point in model.comparison.points}
    return {load: point for load, point in found.items() if point is not None}


def _lines(
    reader: Reader, model: str, engine: EngineReport, found: dict[Load, EnginePoint], best: Load | None,
    price: PriceSpec, points: dict[int, PointRow],
) -> Iterator[tuple[str, ...]]:  # fmt: skip
    for load, point in found.items():
        costs = costs_of(point, price.per_second or math.nan)
        measured = engine.points.get(load, ())
        idle = [_idle(reader, one, points[one.point_id]) for one in measured]
        joules = [_joules(reader, one) for one in measured]
        yield (
            model, engine.label, load_label(load) + (" ★" if load == best else ""),
            *(_text(costs.get(name)) for name in
              ("cost_per_million_output_tokens", "cost_per_million_input_tokens", "cost_per_thousand_requests")),
            f"{float(np.mean(idle)):.1%}" if idle and not np.isnan(idle).any() else NONE,
            f"{number(float(np.mean(joules)))} J" if joules and not np.isnan(joules).any() else NONE,
        )  # fmt: skip


def _text(cost: Cost | None) -> str:
    if cost is None:
        return NONE
    around = band(cost.interval)
    return number(cost.value) + (f" [{around}]" if around else "")


def _idle(reader: Reader, one: Measured, point: PointRow) -> float:
    return idle_share(reader.requests(one.point_id), one.summary.window, point.ended_ns)


def _joules(reader: Reader, one: Measured) -> float:
    """Joules of all GPUs per output token in the steady window; NaN where their power was not sampled."""
    window = one.summary.window
    tokens = one.summary.value("output_tokens_per_s") * window.seconds
    edges = (window.start_ns - _AROUND_NS, window.end_ns + _AROUND_NS)
    found = reader.run_samples(one.run_id, ["gpu.power_w"], *edges)
    devices = [(series.t_ns, series.value) for series in found if series.trial_id == one.trial_id]
    joules: Any = energy_joules(devices, window.start_ns, window.end_ns)
    return joules / tokens if tokens > 0 else math.nan
