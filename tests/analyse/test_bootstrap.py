from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.analyse.bootstrap import (
    REPLICATES,
    gap_draws,
    generator,
    interval,
    mean_draws,
    percentile_draws,
    rate_draws,
    ratio,
    ratio_draws,
)
from redline.analyse.gaps import Gaps, gaps_of
from redline.analyse.percentile import percentile, rank
from tests.analyse.traffic import Row, requests_of

INF = math.inf


def slow_percentile_draws(values: np.ndarray, level: float, replicates: int) -> np.ndarray:
    """The textbook: resample, take the percentile, again."""
    rng = np.random.default_rng(1)
    return np.array([percentile(rng.choice(values, len(values)), level) for _ in range(replicates)])


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [5, 40, 400])
def test_against_textbook_bootstrap(n: int, level: float) -> None:
    values = np.random.default_rng(n).lognormal(3, 0.5, n)
    ours = percentile_draws(values, level, generator(0, "x"))
    theirs = slow_percentile_draws(values, level, 4000)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        # the same distribution: what share of the other's replicates lies below our quantile
        below = float((theirs <= np.sort(ours)[rank(REPLICATES, share) - 1]).mean())
        strictly = float((theirs < np.sort(ours)[rank(REPLICATES, share) - 1]).mean())
        assert strictly - 0.06 <= share <= below + 0.06


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_values_give_no_interval(n: int) -> None:
    assert interval(percentile_draws(np.ones(n), 0.5, generator(0, "x"))) is None
    assert interval(mean_draws(np.ones(n), generator(0, "x"))) is None
    made = requests_of(*[Row(0, chunks=[10, 20, 30]) for _ in range(n)])
    assert [interval(draws) for draws in gap_draws(gaps_of(made), [0.5, 0.99], generator(0, "x"))] == [None, None]


def test_all_failed_is_infinite_and_certain() -> None:
    band = interval(percentile_draws(np.full(20, INF), 0.5, generator(0, "x")))
    assert band is not None
    assert (band.low, band.high) == (INF, INF)
    made = requests_of(*[Row(0, status="reset", asked_output_tokens=4) for _ in range(9)])
    for draws in gap_draws(gaps_of(made), [0.5, 0.99], generator(0, "x")):
        assert (draws == INF).all()


def test_some_failed_reaches_from_finite_to_infinite() -> None:
    values = np.concatenate((np.linspace(1, 2, 97), np.full(3, INF)))
    band = interval(percentile_draws(values, 0.97, generator(0, "x")))
    assert band is not None
    assert math.isfinite(band.low)
    assert band.high == INF


def test_the_seed_decides_everything() -> None:
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (percentile_draws(values, 0.9, generator(seed, "x")) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert (percentile_draws(values, 0.9, generator(1, "y")) != first).any()


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 100), min_size=3, max_size=40), st.floats(1.5, 10))
def test_intervals_scale_with_the_values(values: list[float], factor: float) -> None:
    plain = interval(percentile_draws(np.array(values), 0.9, generator(0, "x")))
    scaled = interval(percentile_draws(np.array(values) * factor, 0.9, generator(0, "x")))
    assert plain is not None
    assert scaled is not None
    assert scaled.low == pytest.approx(plain.low * factor)
    assert scaled.high == pytest.approx(plain.high * factor)
    assert min(values) <= plain.low <= plain.high <= max(values)


def slow_gap_draws(gaps: Gaps, level: float, replicates: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    own = [
        np.concatenate((gaps.ms[gaps.owner == i], np.zeros(gaps.zeros[i]), np.full(gaps.missing[i], INF)))
        for i in range(len(gaps.zeros))
    ]
    picks = rng.integers(0, len(own), (replicates, len(own)))
    return np.array([percentile(np.concatenate([own[i] for i in pick]), level) for pick in picks])


@pytest.mark.parametrize("level", [0.3, 0.5, 0.9, 0.99])
def test_gap_draws_against_textbook_cluster_bootstrap(level: float) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for i in range(40):
        pace = 10 * rng.lognormal(0, 0.3)  # requests differ from each other: clusters matter
        at = np.cumsum(pace * rng.lognormal(0, 0.2, 20)).tolist()
        rows.append(Row(0, chunks=at, tokens=[1 + i % 2] * 20, status="reset" if i == 7 else "ok"))
    gaps = gaps_of(requests_of(*rows))
    ours = gap_draws(gaps, [level], generator(0, "x"))[0]
    theirs = slow_gap_draws(gaps, level, 1500)
    for share in (0.1, 0.5, 0.9):
        a, b = (np.sort(draws)[rank(len(draws), share) - 1] for draws in (ours, theirs))
        assert a == pytest.approx(b, rel=0.05, abs=1e-9)


def test_clusters_are_wider_than_independent_gaps() -> None:
    rng = np.random.default_rng(0)
    rows = [Row(0, chunks=np.cumsum([pace] * 50).tolist()) for pace in rng.lognormal(2, 0.3, 30)]
    gaps = gaps_of(requests_of(*rows))
    clustered = interval(gap_draws(gaps, [0.5], generator(0, "x"))[0])
    naive = interval(percentile_draws(gaps.ms, 0.5, generator(0, "x")))
    assert clustered is not None
    assert naive is not None
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_more_requests_than_groups_keep_the_interval() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    rows = [Row(0, chunks=np.cumsum(pace * np.array([1, 1.1, 0.9])).tolist()) for pace in rng.lognormal(2, 0.3, n)]
    gaps = gaps_of(requests_of(*rows))
    band = interval(gap_draws(gaps, [0.5], generator(0, "x"))[0])
    assert band is not None
    theirs = interval(slow_gap_draws(gaps, 0.5, 200))
    assert theirs is not None
    assert band.high - band.low == pytest.approx(theirs.high - theirs.low, rel=0.3)
    values = rng.lognormal(2, 0.3, n)
    of_mean = interval(mean_draws(values, generator(0, "x")))
    assert of_mean is not None
    assert of_mean.high - of_mean.low == pytest.approx(2 * 1.96 * float(values.std()) / n**0.5, rel=0.2)


def test_a_hundred_thousand_requests_are_cheap() -> None:
    rng = np.random.default_rng(0)
    n, gaps_each = 100_000, 10
    gaps = Gaps(rng.integers(1, 30_000_000, n * gaps_each), np.full(n, gaps_each), np.zeros(n, int), np.zeros(n, int))
    began = time.process_time()
    percentile_draws(rng.exponential(10, n), 0.99, generator(0, "x"))
    gap_draws(gaps, [0.5, 0.9, 0.95, 0.99], generator(0, "x"))
    assert time.process_time() - began < 10


def test_rate_interval_holds_the_rate_and_narrows_with_time() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for seconds in (10, 1000):
        counts = rng.poisson(5 * seconds / 100, 100).astype(float)
        value = counts.sum() / seconds
        band = interval(rate_draws(counts, seconds, 1, generator(0, "x")))
        assert band is not None
        assert band.low <= value <= band.high
        widths.append((band.high - band.low) / value)
    assert widths[1] < widths[0] / 4


def test_a_rate_that_never_varies_is_certain() -> None:
    band = interval(rate_draws(np.full(50, 4.0), 25.0, 3, generator(0, "x")))
    assert band is not None
    assert (band.low, band.high) == pytest.approx((8.0, 8.0))
    assert len(rate_draws(np.ones(2), 1.0, 1, generator(0, "x"))) == 0
    assert len(rate_draws(np.ones(50), 0.0, 1, generator(0, "x"))) == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(2, 4, 0.5), (0, 0, 1), (INF, INF, 1), (INF, 3, INF), (3, INF, 0), (3, 0, INF), (math.nan, 1, math.nan)],
)
def test_ratio(ours: float, theirs: float, expected: float) -> None:
    assert ratio(ours, theirs) == pytest.approx(expected, nan_ok=True)


def test_the_same_distribution_is_rarely_called_different() -> None:
    """A/A: of 300 pairs drawn from one distribution about one in twenty may look different."""
    rng = np.random.default_rng(5)
    alarms = 0
    for i in range(300):
        draws = [percentile_draws(rng.lognormal(3, 0.4, 120), 0.5, generator(i, side)) for side in "ab"]
        band = interval(ratio_draws(*draws))
        assert band is not None
        alarms += not band.low <= 1 <= band.high
    assert alarms <= 300 * 0.08
