"""What charts draw: distributions and timelines of one load point, cut down to a bounded number of points.

A distribution keeps the quantiles that a reader could tell apart; a timeline keeps percentiles of equal slices of time.
Nothing is picked at random, so a spike is never lost: the highest value of every slice is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from redline.analyse.arrivals import arrivals_of, slice_of
from redline.analyse.gaps import Gaps, steps_between
from redline.analyse.latency import Latencies, counted, first_chunk_ns, latencies_of
from redline.analyse.percentile import Floats, rank
from redline.analyse.window import SteadyWindow, in_flight
from redline.store.requests import Ints, Requests, Whole, narrow
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
    tokens = arrivals_of(requests).counts(start, end, SLICES)
    steps = in_flight(requests, ended_ns)
    measured = requests.pick(counted(requests))
    first = first_chunk_ns(measured)
    came = first > 0
    ttft = _sliced(first[came], (first - measured.intended_ns)[came], start, end)
    gaps = _gaps_by_slice(measured, start, end)
    ttft_p50, ttft_max = _each(ttft, (0.5, 1.0))
    itl_p50, itl_p99, itl_max = _each(gaps, (0.5, 0.99, 1.0))
    return Timeline(
        (edges[:-1] + edges[1:]) / 2 / NS_PER_S - start / NS_PER_S,
        tokens / ((end - start) / SLICES / NS_PER_S),
        np.array([steps.mean(int(a), int(b)) for a, b in pairwise(edges)]),
        ttft_p50,
        ttft_max,
        itl_p50,
        itl_p99,
        itl_max,
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


def _gaps_by_slice(requests: Requests, start: int, end: int) -> Iterator[Whole]:
    """Gaps between the chunks of a request, by the slice in which the later chunk arrived."""
    first, last = (slice_of(at, start, end, SLICES) for at in (requests.earliest_ns, requests.latest_ns))
    inside = _groups(np.where(first == last, first, SLICES))
    cut = requests.pick(np.flatnonzero(first < last))  # in more than one slice: looked at chunk by chunk
    later = np.ones(len(cut.chunk_ns), np.bool_)
    later[cut.chunk_start[:-1]] = False
    of_cut = np.diff(cut.chunk_ns)[later[1:]]
    for rows, places in zip(inside, _groups(slice_of(cut.chunk_ns[later], start, end, SLICES)), strict=True):
        whole = requests.pick(rows)
        yield narrow(np.concatenate((*steps_between(whole.chunk_ns, whole.chunks), of_cut[places])))


def _sliced(at_ns: Ints, values: Ints, start: int, end: int) -> list[Ints]:
    """The values of each slice."""
    return [values[places] for places in _groups(slice_of(at_ns, start, end, SLICES))]


def _groups(part: Ints) -> list[Ints]:
    """Of each slice the positions of what is in it, in their order."""
    small = (part % (SLICES + 1)).astype(np.uint8)  # what is in none comes last; small integers are sorted by counting
    cuts = np.cumsum(np.bincount(small, minlength=SLICES + 1))
    return np.split(np.argsort(small, kind="stable"), cuts[:SLICES])[:SLICES]


def _each(slices: Iterable[Whole], levels: tuple[float, ...]) -> Floats:
    """[levels, slices]: the percentiles of each slice in ms, from its values in ns; NaN in an empty one."""
    found = np.full((len(levels), SLICES), np.nan)
    for column, values in enumerate(slices):
        if len(values):
            at = [rank(len(values), level) - 1 for level in levels]
            found[:, column] = np.partition(values, at)[at] / NS_PER_MS
    return found
