"""The classes of a mixed workload, each by itself: its tails, its failures, and whether its own promise is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from redline.analyse.bootstrap import generator, interval, percentile_draws
from redline.analyse.finding import Finding
from redline.analyse.latency import DEFINITION, Latencies, latencies_of
from redline.analyse.percentile import percentile
from redline.analyse.slo import met, wilson
from redline.analyse.throughput import rates_of
from redline.analyse.window import SteadyWindow
from redline.spec.promise import Promise
from redline.store.requests import Bools, Requests
from redline.units import DEFINITIONS

LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
METRICS = ("ttft_ms", "tpot_ms", "e2e_ms")


@dataclass(frozen=True)
class ClassSummary:
    """`findings` by name as in a point's summary: `ttft_ms.p99`, `goodput_per_s`, `slo_attainment`, …

    `counted` are its requests that ended by themselves, `failed` those of them that failed, `share` its part of all
    measured requests. `kept` says whether its promise was kept, None without a promise.
    """

    name: str
    promise: Promise
    share: float
    counted: int
    failed: int
    findings: dict[str, Finding]

    @property
    def kept(self) -> bool | None:
        found = self.findings.get("slo_attainment")
        if found is None or math.isnan(found.value):
            return None
        return found.value >= self.promise.attainment

    def value(self, name: str) -> float:
        """NaN when there is no such finding."""
        return self.findings[name].value if name in self.findings else math.nan


def met_by_class(
    requests: Requests, latencies: Latencies, slo: Mapping[str, float], promises: Mapping[str, Promise]
) -> Bools | None:
    """Which counted requests are good by the terms of their own class; None when nothing is promised to anybody."""
    if not slo and not any(promise.terms for promise in promises.values()):
        return None
    good = met(latencies, slo)
    for name, promise in promises.items():
        rows = np.flatnonzero(requests.request_class == name)
        own = latencies_of(requests.pick(rows))
        good[np.searchsorted(latencies.row, rows[own.row])] = met(own, promise.terms)
    return good


def class_summaries(
    requests: Requests, window: SteadyWindow, promises: Mapping[str, Promise], *, seed: int, run_id: str
) -> dict[str, ClassSummary]:
    """By the name of the class, in the order of the experiment; a class without one request is there too."""
    measured = int((~requests.warmup & (requests.canary < 0)).sum())
    found = {}
    for name, promise in promises.items():
        own = requests.pick(requests.request_class == name)
        latencies = latencies_of(own)
        findings = {f.name: f for f in _findings(own, latencies, window, promise, generator(seed, name), run_id)}
        mine = int((~own.warmup & (own.canary < 0)).sum())
        share = mine / measured if measured else math.nan
        found[name] = ClassSummary(name, promise, share, len(latencies), int(latencies.failed.sum()), findings)
    return found


def _findings(
    own: Requests, latencies: Latencies, window: SteadyWindow, promise: Promise, rng: np.random.Generator, run_id: str
) -> Iterator[Finding]:
    for metric in METRICS:
        values = latencies.headline(metric)
        for level, share in LEVELS.items():
            band = interval(percentile_draws(values, share, rng))
            yield Finding(
                f"{metric}.{level}", percentile(values, share), "ms", DEFINITION[metric], band, runs=(run_id,),
                of=len(values),
            )  # fmt: skip
    gaps = latencies.gaps.percentiles(list(LEVELS.values()))
    for level, value in zip(LEVELS, gaps, strict=True):
        yield Finding(f"itl_ms.{level}", value, "ms", DEFINITION["itl_ms"], runs=(run_id,), of=len(latencies.gaps))
    n, failed = len(latencies), int(latencies.failed.sum())
    yield _share("failed_share", failed, n, run_id)
    good = met(latencies, promise.terms) if promise.terms else None
    if good is not None:
        yield _share("slo_attainment", int(good.sum()), n, run_id)
    for name, rate in rates_of(own, latencies, window, good).items():
        yield Finding(name, rate.value, DEFINITIONS[f"{name}@1"].unit, f"{name}@1", runs=(run_id,), note=window.note)


def _share(name: str, hits: int, n: int, run_id: str) -> Finding:
    value = hits / n if n else math.nan
    return Finding(name, value, "share", f"{name}@1", wilson(hits, n), runs=(run_id,))
