"""What charts draw: distributions and timelines of one load point, cut down to a bounded number of points.

A distribution keeps the quantiles that a reader could tell apart; a timeline keeps percentiles of equal slices of time.
Nothing is picked at random, so a spike is never lost: the highest value of every slice is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from redline.analyse.gaps import Gaps
from redline.analyse.latency import Latencies, counted, first_chunk_ns, latencies_of
from redline.analyse.percentile import Floats, percentile
from redline.analyse.window import SteadyWindow, in_flight, slice_counts, slice_of, token_arrivals
from redline.store.requests import Ints, Requests
from redline.units import NS_PER_MS, NS_PER_S

SHARES = np.unique(
    np.concatenate((np.linspace(0, 1, 101), 1 - np.geomspace(1e-3, 0.1, 20), np.geomspace(1e-3, 0.1, 8)))
)
SLICES = 60


@dataclass(frozen=True)
class Distribution:
    """`share[i]` of the values are at or below `value[i]`. It ends below 1 when some failed: those are infinite."""

    value: Floats
    share: Floats


@dataclass(frozen=True)
class Timeline:
    """Per slice of time: its middle in seconds from the start of the measurement, tokens per second, requests in
    flight, and of the tokens or gaps that arrived in it the median and the highest; NaN where none did."""

    seconds: Floats
    tokens_per_s: Floats
    in_flight: Floats
    ttft_p50: Floats
    ttft_max: Floats
    itl_p50: Floats
    itl_p99: Floats
    itl_max: Floats
    steady: tuple[float, float]


def distributions(requests: Requests, latencies: Latencies | None = None) -> dict[str, Distribution]:
    """Of TTFT, ITL and E2E over the counted requests. `latencies` are those of the same requests, when at hand."""
    latencies = latencies or latencies_of(requests)
    found = {metric: _of_values(latencies.headline(metric)) for metric in ("ttft_ms", "e2e_ms")}
    found["itl_ms"] = _of_gaps(latencies.gaps)
    return found


def timeline(requests: Requests, window: SteadyWindow, measured_from_ns: int, ended_ns: int) -> Timeline:
    """From the start of the measurement to its end in `SLICES` slices."""
    start, end = measured_from_ns, max(ended_ns, measured_from_ns) + 1
    edges = np.linspace(start, end, SLICES + 1)
    times, tokens, _ = token_arrivals(requests)
    steps = in_flight(requests, ended_ns)
    measured = requests.pick(counted(requests))
    first = first_chunk_ns(measured)
    came = first > 0
    ttft = _sliced(first[came], (first - measured.intended_ns)[came] / NS_PER_MS, start, end)
    follows = np.ones(max(len(measured.chunk_ns) - 1, 0), np.bool_)
    some = np.diff(measured.chunk_start) > 0
    follows[measured.chunk_start[:-1][some][1:] - 1] = False
    gaps = _sliced(measured.chunk_ns[1:][follows], np.diff(measured.chunk_ns)[follows] / NS_PER_MS, start, end)
    return Timeline(
        (edges[:-1] + edges[1:]) / 2 / NS_PER_S - start / NS_PER_S,
        slice_counts(times, tokens, start, end, SLICES) / ((end - start) / SLICES / NS_PER_S),
        np.array([steps.mean(int(a), int(b)) for a, b in pairwise(edges)]),
        _each(ttft, 0.5),
        _each(ttft, 1.0),
        _each(gaps, 0.5),
        _each(gaps, 0.99),
        _each(gaps, 1.0),
        ((window.start_ns - start) / NS_PER_S, (window.end_ns - start) / NS_PER_S),
    )


def _of_values(values: Floats) -> Distribution:
    ordered = np.sort(values)
    n = len(ordered)
    if n == 0:
        return Distribution(np.empty(0), np.empty(0))
    at = np.unique(np.clip(np.ceil(SHARES * n - 1e-9).astype(np.int64), 1, n))
    finite = np.isfinite(ordered[at - 1])
    return Distribution(ordered[at - 1][finite], (at / n)[finite])


def _of_gaps(gaps: Gaps) -> Distribution:
    total = gaps.count()
    if total == 0:
        return Distribution(np.empty(0), np.empty(0))
    shares = SHARES[SHARES > 0]
    values = np.array(gaps.percentiles(shares.tolist()))
    finite = np.isfinite(values)
    return Distribution(values[finite], shares[finite])


def _sliced(at_ns: Ints, values: Floats, start: int, end: int) -> list[Floats]:
    """The values of each slice."""
    part = slice_of(at_ns, start, end, SLICES).astype(np.uint8)  # small integers are sorted by counting
    order = np.argsort(part, kind="stable")
    cuts = np.cumsum(np.bincount(part, minlength=SLICES + 1))
    return list(np.split(np.asarray(values[order], np.float64), cuts[:SLICES]))[:SLICES]


def _each(slices: list[Floats], level: float) -> Floats:
    return np.array([percentile(values, level) for values in slices])
