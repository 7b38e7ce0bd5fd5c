"""Spread of a number within one round, when requests are not independent: the circular block bootstrap.

Requests that run at the same time share a queue and a batch, and a box has slow and fast minutes, so neighbours in time
are alike. Resampling single requests would then call the same luck many independent facts, and the interval would come
out too narrow. Instead whole stretches of requests, in the order of their intended start, are drawn. A stretch is as
long as the series itself asks for (Politis and White's rule, on the indicator "above the percentile"), and at least
two lifetimes of a request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redline.analyse.bootstrap import FEWEST
from redline.analyse.gaps import Gaps
from redline.analyse.percentile import Floats, rank
from redline.store.requests import Ints

GROUPS = 500
"""Neighbours are thrown together so that no more units than this are drawn from."""
REPLICATES = 400
FEWEST_BLOCKS = 8


@dataclass(frozen=True)
class Spread:
    """A number of one round, the standard error of its logarithm, and how many independent blocks that rests on.

    `log_se` is NaN when nothing can be said: too few values, or one that is 0 or infinite.
    """

    value: float
    log_se: float = math.nan
    blocks: float = 0.0

    @property
    def df(self) -> float:
        return max(self.blocks - 1, 1.0)


@dataclass(frozen=True)
class Units:
    """What percentiles are drawn from: m units in the order of time, each with values in `ms` (sorted, `whose` unit),
    `zeros` values of 0 below them, and `sizes` values in all (the rest is infinite)."""

    ms: Floats
    whose: Ints
    zeros: Floats
    sizes: Floats


def units_of_values(values: Floats) -> Units:
    """Of one value per request, in the order of the requests' start; +inf for a failed one."""
    m = min(len(values), GROUPS)
    owner = np.arange(len(values)) * m // max(len(values), 1)
    finite = np.flatnonzero(np.isfinite(values))
    order = finite[np.argsort(values[finite], kind="stable")]
    sizes = np.bincount(owner, minlength=m).astype(np.float64)
    return Units(values[order], owner[order], np.zeros(m), sizes)


def units_of_gaps(gaps: Gaps) -> Units:
    """Of the gaps of requests that stand in the order of their start."""
    n = len(gaps.zeros)
    m = min(n, GROUPS)
    owner = np.arange(n) * m // max(n, 1)
    zeros = np.bincount(owner, weights=gaps.zeros, minlength=m).astype(np.float64)
    owed = np.bincount(owner, weights=gaps.missing, minlength=m)
    order = np.argsort(gaps.ms, kind="stable")
    whose = owner[gaps.owner[order]]
    sizes = zeros + owed + np.bincount(whose, minlength=m)
    return Units(gaps.ms[order], whose, zeros, sizes)


def percentile_spreads(
    units: Units, levels: list[float], in_flight: float, requests: int, rng: np.random.Generator
) -> list[Spread]:
    """The percentile of all values together at each level, and its spread. `in_flight` requests run at a time."""
    m, total = len(units.sizes), units.sizes.sum()
    if m < FEWEST or total == 0:
        return [Spread(math.nan) for _ in levels]
    lifetime = in_flight * m / max(requests, 1)
    found = []
    for level in levels:
        at = int(rank(int(total), level) - units.zeros.sum()) - 1
        value = 0.0 if at < 0 else float(units.ms[at]) if at < len(units.ms) else math.inf
        if not 0 < value < math.inf:
            found.append(Spread(value))
            continue
        below = np.bincount(units.whose[: at + 1], minlength=m) + units.zeros
        block = block_length(below - below.sum() / total * units.sizes, 2 * lifetime)
        weights = block_weights(m, block, rng)
        draws = _draws(units, level, at, below, weights)
        log_se = float(np.log(draws).std()) if np.isfinite(draws).all() and (draws > 0).all() else math.nan
        found.append(Spread(value, log_se * _small_sample(m / block), m / block))
    return found


def rate_spread(counts: Floats, seconds: float, lifetime_slices: float, rng: np.random.Generator) -> Spread:
    """A rate from counts in equal slices of `seconds`; a request lives for `lifetime_slices` of them."""
    n = len(counts)
    if n < FEWEST or seconds <= 0:
        return Spread(math.nan)
    value = float(counts.sum()) / seconds
    if value <= 0:
        return Spread(value)
    block = block_length(counts - counts.mean(), 2 * lifetime_slices)
    sums = block_weights(n, block, rng) @ counts
    return Spread(value, float(sums.std() / sums.mean()) * _small_sample(n / block), n / block)


def block_length(series: Floats, at_least: float) -> int:
    """Units in a block: Politis and White's choice for this series, at least `at_least`, and at most so many that
    `FEWEST_BLOCKS` fit."""
    wanted = max(_politis_white(series), math.ceil(at_least), 1)
    return min(wanted, max(len(series) // FEWEST_BLOCKS, 1))


def block_weights(units: int, block: int, rng: np.random.Generator) -> Floats:
    """[replicates, units]: how often each unit is drawn when blocks of neighbours, in a circle, are drawn."""
    blocks = math.ceil(units / block)
    start = rng.integers(0, units, (REPLICATES, blocks))
    length = np.full(blocks, block)
    length[-1] = units - (blocks - 1) * block
    row = np.arange(REPLICATES)[:, None] * (2 * units + 1)
    size = REPLICATES * (2 * units + 1)
    edges = np.bincount((row + start).ravel(), minlength=size) - np.bincount(
        (row + start + length).ravel(), minlength=size
    )
    held = edges.reshape(REPLICATES, 2 * units + 1).cumsum(axis=1)[:, : 2 * units]
    return (held[:, :units] + held[:, units:]).astype(np.float64)


def _small_sample(blocks: float) -> float:
    return math.sqrt(blocks / (blocks - 1)) if blocks > 1 else 1.0


def _draws(units: Units, level: float, at: int, below: Floats, weights: Floats) -> Floats:
    """Replicates of the percentile: the first of ~200 measured values around the estimate with enough values below."""
    m, total = len(units.sizes), float(units.sizes.sum())
    totals = weights @ units.sizes
    error = float(np.std(weights @ below / totals))
    spread = np.linspace(-6, 6, 193) * max(error, 1 / total)
    last = len(units.ms) - 1
    cuts = np.unique(np.concatenate((np.clip(np.round(at + spread * total), 0, last), [0, last]))).astype(np.int64)
    bucket = np.searchsorted(cuts, np.arange(last + 1))
    counts = np.bincount(units.whose * len(cuts) + bucket, minlength=m * len(cuts)).reshape(m, len(cuts))
    reached = np.column_stack((units.zeros, counts.cumsum(axis=1) + units.zeros[:, None], units.sizes))
    grid = np.concatenate(([0.0], units.ms[cuts], [np.inf]))
    enough = weights @ reached >= level * totals[:, None] - 1e-6
    return np.asarray(grid[enough.argmax(axis=1)], np.float64)


def _politis_white(series: Floats) -> int:
    """Block length with the smallest error of the variance (Politis and White 2004, corrected 2009)."""
    n = len(series)
    centred = series - series.mean()
    variance = float(centred @ centred) / n
    if n < 8 or variance <= 0:
        return 1
    run = max(5, math.ceil(math.log10(n)))
    farthest = min(math.ceil(math.sqrt(n)) + run, n - 1)
    cov = np.array([float(centred[: n - k] @ centred[k:]) / n for k in range(farthest + 1)])
    quiet = np.abs(cov[1:] / variance) < 2 * math.sqrt(math.log10(n) / n)
    first = next((m for m in range(max(len(quiet) - run, 0) + 1) if quiet[m : m + run].all()), len(quiet) - run)
    lags = np.arange(1, min(2 * max(first, 1), farthest) + 1)
    taper = np.minimum(1.0, 2 * (1 - lags / (len(lags) + 1e-9)))
    zero = variance + 2 * float(taper @ cov[lags])
    slope = 2 * float(taper @ (lags * cov[lags]))
    if zero <= 0:
        return math.ceil(math.sqrt(n))
    length = (1.5 * (slope / zero) ** 2 * n) ** (1 / 3)
    return min(max(round(length), 1), math.ceil(min(3 * math.sqrt(n), n / 3)))
