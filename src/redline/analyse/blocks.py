"""Spread of a number within one round, when requests are not independent: the circular block bootstrap.

Requests that run at the same time share a queue and a batch, and a box has slow and fast minutes, so neighbours in time
are alike. Resampling single requests would call the same luck many independent facts, and the interval would come
out too narrow. Whole stretches of requests, in the order of their intended start, are resampled instead. A stretch is
a sixteenth of the round or as long as the series itself asks for (Politis and White's rule, on the indicator "above
the percentile"), at least two lifetimes of a request, and at most an eighth of the round.

Nothing is drawn at random: the variance of a sum under this bootstrap has a closed form, the mean square of the sums
of all stretches. What stretches of finite length miss is put back by the difference to stretches a third as long
(the lugsail correction); a percentile's error follows from that of the share below it (Woodruff).
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
FEWEST_BLOCKS, USUAL_BLOCKS = 8, 16


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
        # the corrected variance is less sure of itself than one of independent blocks
        return max(0.6 * (self.blocks - 1), 1.0)


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
    order = np.argsort(gaps.ns, kind="stable")
    whose = owner[gaps.owner[order]]
    sizes = zeros + owed + np.bincount(whose, minlength=m)
    return Units(gaps.ms[order], whose, zeros, sizes)


def percentile_spreads(units: Units, levels: list[float], in_flight: float, requests: int) -> list[Spread]:
    """The percentile of all values together at each level, and its spread. `in_flight` requests run at a time."""
    m, total = len(units.sizes), float(units.sizes.sum())
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
        series = below - below.sum() / total * units.sizes
        block = block_length(series, 2 * lifetime)
        share_error = math.sqrt(m * long_run_variance(series, block))
        found.append(Spread(value, _slope(units.ms, at, share_error) * share_error, m / block))
    return found


def rate_spread(counts: Floats, seconds: float, lifetime_slices: float) -> Spread:
    """A rate from counts in equal slices of `seconds`; a request lives for `lifetime_slices` of them."""
    n = len(counts)
    if n < FEWEST or seconds <= 0:
        return Spread(math.nan)
    total = float(counts.sum())
    if total <= 0:
        return Spread(total / seconds)
    series = counts - counts.mean()
    block = block_length(series, 2 * lifetime_slices)
    return Spread(total / seconds, math.sqrt(n * long_run_variance(series, block)) / total, n / block)


def block_length(series: Floats, at_least: float) -> int:
    """Units in a block: see the top of this file."""
    n = len(series)
    wanted = max(_politis_white(series), math.ceil(at_least), n // USUAL_BLOCKS, 1)
    return min(wanted, max(n // FEWEST_BLOCKS, 1))


def long_run_variance(series: Floats, block: int) -> float:
    """Variance of the sum of a centred series per unit, from all stretches of `block` units in a circle.

    Stretches that cut a correlation short make it too small by about 1 / block, so a third of that again is measured
    and extrapolated; never below the plain value.
    """
    plain = _stretches(series, block)
    corrected = 1.5 * plain - 0.5 * _stretches(series, block // 3) if block >= 3 else plain
    blocks = len(series) / block
    return max(plain, corrected) * (blocks / (blocks - 1) if blocks > 1 else 1.0)


def _stretches(series: Floats, block: int) -> float:
    wrapped = np.concatenate(([0.0], np.cumsum(np.concatenate((series, series[: block - 1] if block > 1 else [])))))
    sums = wrapped[block:] - wrapped[:-block]
    return float(sums @ sums) / (len(sums) * block)


def _slope(ordered: Floats, at: int, error: float) -> float:
    """How much the logarithm of the value grows per rank around rank `at`, over one standard error either way."""
    reach = max(error, 1.0)
    low, high = max(math.floor(at - reach), 0), min(math.ceil(at + reach), len(ordered) - 1)
    if high == low or ordered[low] <= 0:
        return math.nan
    return float(np.log(ordered[high] / ordered[low])) / (high - low)


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
    length: float = (1.5 * (slope / zero) ** 2 * n) ** (1 / 3)
    return min(max(round(length), 1), math.ceil(min(3 * math.sqrt(n), n / 3)))
