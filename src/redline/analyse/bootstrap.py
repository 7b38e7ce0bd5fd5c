"""Confidence intervals by the bootstrap: what would this number have been with another draw of the same kind?

Requests are resampled, and with a request all of its gaps (the cluster bootstrap: tokens of one stream are not
independent). For rates it is stretches of time, since the number of requests is itself a result. A replicate of a
percentile needs no resampling: it is an order statistic, whose rank follows a Beta distribution exactly. So the cost
does not grow with the number of requests, and every function gives the same answer for the same seed.

Intervals are percentile intervals. They know nothing about what differs from one start of an engine to the next;
`comparison` adds that from repeats.
"""

from __future__ import annotations

import math
import zlib
from functools import cached_property

import numpy as np

from redline.analyse.finding import Interval
from redline.analyse.gaps import Gaps
from redline.analyse.percentile import Floats, rank
from redline.store.requests import Ints, Whole
from redline.units import NS_PER_MS

REPLICATES = 1000
_BLOCK = 1 << 16
"""Gaps looked at in one go: what is computed of them stays in the processor's cache."""
GROUPS = 500
"""Clusters beyond this many are thrown together at random: the interval stays right, the work stays bounded."""

FEWEST = 3
"""No interval from fewer values than this."""


def generator(seed: int, name: str) -> np.random.Generator:
    """A stream of random numbers for one number of one point, independent of the order in which they are computed."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def percentile_draws(values: Floats, level: float, rng: np.random.Generator, *, in_order: bool = False) -> Floats:
    """Replicates of the percentile of n values resampled with replacement; none from fewer than `FEWEST`.

    `in_order`: the values are sorted already.

    The r-th smallest of n uniform draws is Beta(r, n − r + 1), and a uniform draw u picks the ⌈n u⌉-th value.
    """
    n = len(values)
    if n < FEWEST:
        return np.empty(0)
    at = rank(n, level)
    picked = np.ceil(n * rng.beta(at, n - at + 1, REPLICATES)).astype(np.int64)
    positions = np.clip(picked, 1, n) - 1
    ordered = values if in_order else np.partition(values, np.unique(positions))
    return np.asarray(ordered[positions], np.float64)


def mean_draws(values: Floats, rng: np.random.Generator) -> Floats:
    """Replicates of the mean."""
    n = len(values)
    if n < FEWEST:
        return np.empty(0)
    sums, sizes = _group(values, np.ones(n), rng)
    weights = _weights(len(sums), rng)
    return np.asarray((weights @ sums) / (weights @ sizes), np.float64)


def gap_draws(gaps: Gaps, levels: list[float], rng: np.random.Generator) -> list[Floats]:
    """Replicates of percentiles of all gaps together when requests are resampled, one array per level.

    A replicate's percentile is the smallest of a few hundred measured gaps around the estimate with enough gaps at or
    below it.
    """
    n = len(gaps.zeros)
    total = gaps.count()
    if n < FEWEST or total == 0:
        return [np.empty(0) for _ in levels]
    owner, groups = np.arange(n), n
    if n > GROUPS:
        owner, groups = rng.permutation(n) % GROUPS, GROUPS
    by_group = _ByGroup(gaps, owner, groups)
    zeros, sizes = by_group.sums(gaps.zeros), by_group.sums(gaps.per_owner())
    weights = _weights(groups, rng)
    totals = weights @ sizes
    cuts = _cuts(by_group, sizes, zeros, levels)
    values = gaps.ranked.at(np.concatenate(cuts))
    draws = []
    for level, own in zip(levels, np.split(values, np.cumsum([len(cut) for cut in cuts])[:-1]), strict=True):
        grid = np.concatenate(([0.0], own / NS_PER_MS, [np.inf]))
        below = np.column_stack((zeros, by_group.below(own) + zeros[:, None], sizes))
        enough = weights @ below >= level * totals[:, None] - 1e-6
        draws.append(grid[enough.argmax(axis=1)])
    return draws


class _ByGroup:
    """Gaps counted by group of requests. Only those around an estimate are looked at one by one."""

    def __init__(self, gaps: Gaps, owner: Ints, groups: int) -> None:
        self.gaps, self._owner, self._groups = gaps, owner, groups
        self.real = self.sums(gaps.real)

    def sums(self, per_request: Ints) -> Floats:
        return np.bincount(self._owner, weights=per_request, minlength=self._groups).astype(np.float64)

    def below(self, values: Ints) -> Floats:
        """[groups, values]: how many gaps of each group are at or below each of the rising values, in ns."""
        ns, k = self.gaps.ns, len(values)
        if k == 0:
            return np.empty((self._groups, 0))
        # the first and the last value are the extremes: what lies between them and the rest needs no look
        low, high = (int(v) for v in ((values[1], values[-2]) if k > 2 else (values[0], values[-1])))
        inside = _places(ns, low, high)
        bucket = np.searchsorted(values, ns[inside])
        counts = np.bincount(self._whose(inside) * k + bucket, minlength=self._groups * k).reshape(self._groups, k)
        found = counts.cumsum(axis=1) + self.sums(self.gaps.below(low))[:, None]
        if k > 2:
            found[:, 0], found[:, -1] = self._shortest, self.real
        return np.asarray(found, np.float64)

    @cached_property
    def _shortest(self) -> Ints:
        """How many gaps of each group are as short as the shortest of all."""
        least = int(self.gaps.ns.min())
        found: Ints = np.bincount(self._whose(_places(self.gaps.ns, least - 1, least)), minlength=self._groups)
        return found

    def _whose(self, places: Ints) -> Ints:
        """The group of the request that each of these gaps belongs to."""
        return self._owner[np.searchsorted(self.gaps.begins, places, "right") - 1]


def _places(ns: Whole, above: int, upto: int) -> Ints:
    """Where the numbers in (above, upto] are."""
    blocks = ((first, ns[first : first + _BLOCK]) for first in range(0, len(ns), _BLOCK))
    return np.concatenate([first + np.flatnonzero((some > above) & (some <= upto)) for first, some in blocks])


def _cuts(by_group: _ByGroup, sizes: Floats, zeros: Floats, levels: list[float]) -> list[Ints]:
    """For each level, positions in the sorted gaps that a replicate's percentile may fall on: ± 8 standard errors
    around the estimate.

    The standard error is that of the share of gaps below the estimate, by the ratio of sums over groups.
    """
    m = len(by_group.gaps.ns)
    if m == 0:
        return [np.empty(0, np.int64) for _ in levels]
    total, none = sizes.sum(), zeros.sum()
    centres = [int(min(max(rank(int(total), level) - none - 1, 0), m - 1)) for level in levels]
    cuts = []
    for centre, value in zip(centres, by_group.gaps.ranked.at(np.array(centres)).tolist(), strict=True):
        below = by_group.sums(by_group.gaps.below(value)) + zeros
        share = below.sum() / total
        error = math.sqrt(float(((below - share * sizes) ** 2).sum())) / total
        spread = np.linspace(-8, 8, 161) * max(error, 1 / total)
        around = np.clip(np.round(centre + spread * total), 0, m - 1)
        cuts.append(np.unique(np.concatenate((around, [0, m - 1]))).astype(np.int64))
    return cuts


def rate_draws(counts: Floats, seconds: float, block: int, rng: np.random.Generator) -> Floats:
    """Replicates of a rate from counts in equal slices of time, `seconds` long in all, by the circular block bootstrap.

    Blocks of `block` slices keep together what belongs together, such as one request's prompt and answer.
    """
    n = len(counts)
    if n < FEWEST or seconds <= 0:
        return np.empty(0)
    block = min(max(block, 1), n)
    blocks = math.ceil(n / block)
    start = rng.integers(0, n, (REPLICATES, blocks))
    wrapped = np.concatenate(([0.0], np.cumsum(np.concatenate((counts, counts)))))
    length = np.full(blocks, block)
    length[-1] = n - (blocks - 1) * block
    return np.asarray((wrapped[start + length] - wrapped[start]).sum(axis=1) / seconds, np.float64)


def interval(draws: Floats, level: float = 0.95) -> Interval | None:
    """The middle `level` of the replicates; None when there are none."""
    if len(draws) == 0 or np.isnan(draws).any():
        return None
    ordered = np.sort(draws)
    tail = (1 - level) / 2
    return Interval(
        float(ordered[rank(len(ordered), tail) - 1]), float(ordered[rank(len(ordered), 1 - tail) - 1]), level
    )


def ratio_draws(ours: Floats, theirs: Floats) -> Floats:
    """Replicates of ours / theirs from two independent bootstraps. Both infinite or both 0 counts as equal."""
    if len(ours) == 0 or len(theirs) == 0:
        return np.empty(0)
    n = min(len(ours), len(theirs))
    return np.array([ratio(a, b) for a, b in zip(ours[:n].tolist(), theirs[:n].tolist(), strict=True)])


def ratio(ours: float, theirs: float) -> float:
    """ours / theirs over [0, ∞]: equal values give 1 even when both are 0 or infinite."""
    if math.isnan(ours) or math.isnan(theirs):
        return math.nan
    if ours == theirs:
        return 1.0
    if theirs == 0 or math.isinf(ours):
        return math.inf
    return 0.0 if math.isinf(theirs) else ours / theirs


def _group(values: Floats, sizes: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    n = len(values)
    if n <= GROUPS:
        return values, sizes
    where = rng.permutation(n) % GROUPS
    return np.bincount(where, weights=values).astype(np.float64), np.bincount(where, weights=sizes).astype(np.float64)


def _weights(groups: int, rng: np.random.Generator) -> Floats:
    """[replicates, groups]: how often each group was drawn."""
    drawn = rng.integers(0, groups, (REPLICATES, groups)) + np.arange(REPLICATES)[:, None] * groups
    return np.bincount(drawn.ravel(), minlength=REPLICATES * groups).reshape(REPLICATES, groups).astype(np.float64)
