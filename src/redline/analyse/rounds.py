"""One round of one load point, as a comparison needs it: each number with the spread that the round itself shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from redline.analyse.blocks import Spread, percentile_spreads, rate_spread, units_of_gaps, units_of_values
from redline.analyse.classes import met_by_class
from redline.analyse.latency import latencies_of
from redline.analyse.percentile import LEVELS
from redline.analyse.summary import window_of
from redline.analyse.throughput import block_length, mean_in_flight, rates_of
from redline.spec.promise import Promise
from redline.store.requests import Requests

LATENCIES = ("ttft_ms", "ttft_ms.sent", "tpot_ms", "e2e_ms", "e2e_ms.sent")


@dataclass(frozen=True)
class Round:
    """`numbers` by name (`ttft_ms.p50`, `output_tokens_per_s`, …), `shares` as (hits, of how many), and counts of
    requests: measured, counted, cut_off."""

    numbers: dict[str, Spread]
    shares: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def measure_round(
    requests: Requests,
    *,
    measured_from_ns: int,
    ended_ns: int,
    slo: Mapping[str, float],
    asked: tuple[str, float] | None = None,
    promises: Mapping[str, Promise] | None = None,
) -> Round:
    """The same input gives the same output. Percentiles count failures as +inf, like everywhere. `asked` and
    `promises` as in `summarise_point`: a round has the numbers of the load point's summary."""
    ordered = requests.pick(np.argsort(requests.intended_ns, kind="stable"))
    latencies = latencies_of(ordered)
    window = window_of(ordered, (measured_from_ns, ended_ns), asked)
    in_flight = mean_in_flight(ordered, window, ended_ns)
    names, levels = list(LEVELS), list(LEVELS.values())
    numbers: dict[str, Spread] = {}
    for metric in LATENCIES:
        units = units_of_values(latencies.headline(metric))
        found = percentile_spreads(units, levels, in_flight, len(latencies))
        numbers |= {f"{metric}.{name}": spread for name, spread in zip(names, found, strict=True)}
    found = percentile_spreads(units_of_gaps(latencies.gaps), levels, in_flight, len(latencies))
    numbers |= {f"itl_ms.{name}": spread for name, spread in zip(names, found, strict=True)}
    good = met_by_class(ordered, latencies, slo, promises or {})
    lifetime = block_length(ordered, window)
    for name, rate in rates_of(ordered, latencies, window, good).items():
        # a window shorter than eight requests holds too few blocks to know its own spread
        numbers[name] = rate_spread(rate.counts, window.seconds, lifetime)
    shares = {"failed_share": (int(latencies.failed.sum()), len(latencies))}
    if good is not None:
        shares["slo_attainment"] = (int(good.sum()), len(latencies))
    measured = int((~requests.warmup & (requests.canary < 0)).sum())
    counts = {
        "measured": measured,
        "counted": len(latencies),
        "cut_off": int((~requests.warmup & (requests.status == "cancelled")).sum()),
    }
    return Round(numbers, shares, counts)


def level_of(metric: str) -> float:
    """The level of `ttft_ms.p99`; NaN for what is no percentile."""
    return LEVELS.get(metric.rpartition(".")[2], math.nan)
