"""What is counted around the estimate only equals what sorting every gap with its request gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from redline.analyse import bootstrap
from redline.analyse.bootstrap import gap_draws, generator
from redline.analyse.gaps import Gaps
from redline.analyse.percentile import Floats, rank
from redline.analyse.window import Steps
from redline.store.requests import Ints


def sorted_gap_draws(gaps: Gaps, levels: list[float], rng: np.random.Generator) -> list[Floats]:
    """The plain way: sort all gaps together with their owners, count by position."""
    n = len(gaps.zeros)
    owner, groups = np.arange(n), n
    if n > bootstrap.GROUPS:
        owner, groups = rng.permutation(n) % bootstrap.GROUPS, bootstrap.GROUPS
    real = np.bincount(owner[gaps.owner], minlength=groups)
    sizes = np.bincount(owner, weights=gaps.zeros + gaps.missing, minlength=groups) + real
    zeros = np.bincount(owner, weights=gaps.zeros, minlength=groups)
    weights = bootstrap._weights(groups, rng)
    order = np.argsort(gaps.ms, kind="stable")
    ordered, whose = gaps.ms[order], owner[gaps.owner[order]]
    draws = []
    for level in levels:
        m, total = len(ordered), sizes.sum()
        centre = int(min(max(rank(int(total), level) - zeros.sum() - 1, 0), m - 1))
        below = np.bincount(whose[: centre + 1], minlength=groups) + zeros
        error = math.sqrt(float(((below - below.sum() / total * sizes) ** 2).sum())) / total
        around = np.clip(np.round(centre + np.linspace(-8, 8, 161) * max(error, 1 / total) * total), 0, m - 1)
        cuts = np.unique(np.concatenate((around, [0, m - 1]))).astype(np.int64)
        each = np.array([np.bincount(whose[: cut + 1], minlength=groups) for cut in cuts]).T + zeros[:, None]
        table = np.column_stack((zeros, each, sizes))
        enough = weights @ table >= level * (weights @ sizes)[:, None] - 1e-6
        draws.append(np.concatenate(([0.0], ordered[cuts], [np.inf]))[enough.argmax(axis=1)])
    return draws


def made(rng: np.random.Generator, n: int, most: int, *, many: bool = False) -> Gaps:
    counts = rng.integers(0, most, n) + (300 if many else 0)
    ns = rng.choice(60_000_000, int(counts.sum()), replace=False).astype(np.uint32)  # the plain way tells equals apart
    return Gaps(ns, counts, rng.integers(0, 3, n), (rng.random(n) < 0.1) * rng.integers(1, 9, n))


@pytest.mark.parametrize(("n", "most"), [(3, 2), (5, 4), (40, 12), (700, 9), (60, 300)])
def test_against_sorting(n: int, most: int) -> None:
    rng = np.random.default_rng(n)
    for trial in range(4):
        gaps = made(rng, n, most, many=trial == 3)
        if len(gaps.ms) == 0:
            continue
        for some in (gaps, gaps.of_good()):
            if len(some.ms) == 0:
                continue
            ours = gap_draws(some, [0.01, 0.5, 0.9, 0.99], generator(1, "x"))
            theirs = sorted_gap_draws(some, [0.01, 0.5, 0.9, 0.99], generator(1, "x"))
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("many", [False, True])
def test_gaps_below_a_limit_are_counted_by_request(many: bool) -> None:
    gaps = made(np.random.default_rng(0), 50, 9, many=many)
    for limit in (0, 3_000_000, 8_000_000, 2**40):
        assert gaps.below(limit).tolist() == [int((gaps.ns[gaps.owner == i] <= limit).sum()) for i in range(50)]


def test_the_good_ones_leave_the_failed_requests_gaps_out() -> None:
    gaps = Gaps(np.array([5, 5, 5, 2]), np.array([1, 2, 1]), np.zeros(3, int), np.array([0, 1, 0]))
    good = gaps.of_good()
    assert good.ns.tolist() == [5, 2]
    assert good.owner.tolist() == [0, 2]


def test_levels_of_a_part_of_the_steps() -> None:
    rng = np.random.default_rng(3)
    times: Ints = np.unique(rng.integers(0, 1000, 60))
    steps = Steps(times, rng.integers(0, 9, len(times)))
    for start, end in rng.integers(-50, 1100, (200, 2)):
        if end <= start:
            continue
        expected = sum(
            level * max(0, min(until, end) - max(at, start))
            for at, until, level in zip(times, [*times[1:], max(end, times[-1])], steps.level, strict=True)
        )
        assert steps.mean(int(start), int(end)) == pytest.approx(expected / (end - start))
