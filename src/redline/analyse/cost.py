"""What an answer costs: a price per second over a rate. Always at a stated load, and never one price for 'tokens'."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from redline.analyse.comparison import EnginePoint, Load, Pooled
from redline.analyse.finding import Interval
from redline.analyse.percentile import Floats
from redline.analyse.slo import wilson
from redline.analyse.window import SteadyWindow, in_flight
from redline.store.requests import Ints, Requests

COSTS = {
    "cost_per_million_output_tokens": ("output_tokens_per_s", 1e6),
    "cost_per_million_input_tokens": ("input_tokens_per_s", 1e6),
    "cost_per_thousand_requests": ("requests_per_s", 1e3),
}
"""Each is the whole price of the box over that one rate: they are three views of one bill, not parts of it."""


@dataclass(frozen=True)
class Cost:
    """In the currency of the price. `interval` comes from the interval of the rate."""

    name: str
    value: float
    interval: Interval | None


def costs_of(point: EnginePoint, per_second: float) -> dict[str, Cost]:
    """By name, at one load point. Infinite where nothing was served; left out where the rate is not known."""
    found = {}
    for name, (rate, each) in COSTS.items():
        value, band = _input_rate(point) if rate == "input_tokens_per_s" else _rate(point.numbers.get(rate))
        if not math.isnan(value):
            turned = Interval(_over(per_second * each, band.high), _over(per_second * each, band.low)) if band else None
            found[name] = Cost(name, _over(per_second * each, value), turned)
    return found


def best_at_slo(points: Mapping[Load, EnginePoint], attainment: float) -> Load | None:
    """The load point with the highest output rate among those that keep the promise for sure: the lower Wilson bound
    of the share of good requests reaches `attainment`, and the verdict lets the numbers stand."""
    good = [
        load
        for load, point in points.items()
        if point.verdict.state in ("valid", "degraded") and attained(point) >= attainment
    ]
    return max(good, key=lambda load: points[load].value("output_tokens_per_s"), default=None)


def attained(point: EnginePoint) -> float:
    """Lower 95 % Wilson bound of the share of requests that met the SLO, all rounds together; NaN without an SLO."""
    share, n = point.value("slo_attainment"), point.counts.get("counted", 0)
    band = None if math.isnan(share) else wilson(round(share * n), n)
    return math.nan if band is None else band.low


def idle_share(requests: Requests, window: SteadyWindow, ended_ns: int) -> float:
    """Share of the steady window in which no request was in flight: paid for, and nothing asked."""
    if window.seconds <= 0:
        return math.nan
    level, length = in_flight(requests, ended_ns).inside(window.start_ns, window.end_ns)
    return 1 - float(length[level > 0].sum()) / (window.end_ns - window.start_ns)


def energy_joules(devices: Sequence[tuple[Ints, Floats]], start_ns: int, end_ns: int) -> float:
    """Energy of all devices in [start, end] from samples of their power in watts (t_ns, W), by the trapezoid rule.

    NaN when a device has no sample, or the samples of one do not reach across nine tenths of the time.
    """
    total = 0.0
    for t_ns, watts in devices:
        inside = (t_ns >= start_ns) & (t_ns <= end_ns) & np.isfinite(watts)
        t, w = t_ns[inside] / 1e9, watts[inside]
        if len(t) < 2 or t[-1] - t[0] < 0.9 * (end_ns - start_ns) / 1e9:
            return math.nan
        # the mean power over what was sampled stands for the whole of it
        mean = float((np.diff(t) * (w[1:] + w[:-1]) / 2).sum()) / float(t[-1] - t[0])
        total += mean * (end_ns - start_ns) / 1e9
    return total if devices else math.nan


def _rate(pooled: Pooled | None) -> tuple[float, Interval | None]:
    return (math.nan, None) if pooled is None else (pooled.value, pooled.interval)


def _input_rate(point: EnginePoint) -> tuple[float, Interval | None]:
    """Prompt tokens per second: all tokens less output tokens, with the relative width of all tokens."""
    total, band = _rate(point.numbers.get("total_tokens_per_s"))
    value = total - point.value("output_tokens_per_s")
    if band is None or not total > 0:
        return value, None
    return value, Interval(value * band.low / total, value * band.high / total, band.level)


def _over(price: float, rate: float) -> float:
    return price / rate if rate > 0 else math.inf
