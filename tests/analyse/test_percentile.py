from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.percentile import LEVELS, enough_to_bound, is_maximum, is_maximum_of, percentile, rank

INF = math.inf
values_st = st.lists(st.one_of(st.floats(0, 1e6), st.just(INF)), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("values", "level", "expected"),
    [
        ([3, 1, 2], 0.5, 2),
        ([1, 2, 3, 4], 0.5, 2),  # never 2.5: nobody measured it
        ([1, 2, 3, 4], 0.51, 3),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 101)), 0.07, 7),  # 0.07 * 100 is 7.000000000000001
        (list(range(1, 21)), 0.95, 19),
        ([5], 0.99, 5),
        ([1, INF], 0.5, 1),
        ([1, INF], 0.99, INF),
        ([INF, INF], 0.5, INF),
        ([1] * 99 + [INF], 0.99, 1),
        ([1] * 98 + [INF] * 2, 0.99, INF),
    ],
)
def test_percentile_is_the_order_statistic(values: list[float], level: float, expected: float) -> None:
    assert percentile(np.array(values, float), level) == expected


@given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_of_too_few_values_is_their_maximum(n: int, level: float) -> None:
    assert is_maximum(n, level) == (percentile(np.arange(n, dtype=float), level) == n - 1)


def test_which_findings_are_percentiles() -> None:
    assert [is_maximum_of(f"ttft_ms.{p}", 99) for p in ("p50", "p95", "p99")] == [False, False, True]
    assert not is_maximum_of("ttft_ms.p99", 100)
    assert not is_maximum_of("ttft_ms.p99", 0), "nobody knows how many"
    assert not is_maximum_of("output_tokens_per_s", 1)


def test_percentile_of_nothing_is_nan() -> None:
    assert math.isnan(percentile(np.empty(0), 0.5))


def test_against_numpy_inverted_cdf() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 10, 99, 100, 101, 1000):
        values = rng.exponential(size=n)
        for level in (0.01, 0.25, *LEVELS.values(), 1.0):
            assert percentile(values, level) == np.quantile(values, level, method="inverted_cdf")


@given(values_st)
def test_percentiles_never_fall_with_the_level(values: list[float]) -> None:
    found = [percentile(np.array(values), level) for level in (0.01, 0.5, 0.9, 0.95, 0.99, 1.0)]
    assert found == sorted(found)


@given(values_st, st.floats(0.01, 1), st.floats(0.5, 100), st.randoms(use_true_random=False))
def test_percentile_scales_and_ignores_order(values: list[float], level: float, factor: float, random: object) -> None:
    plain = percentile(np.array(values), level)
    assert percentile(np.array(values) * factor, level) == plain * factor
    random.shuffle(values)  # type: ignore[attr-defined]
    assert percentile(np.array(values), level) == plain


@given(values_st, st.floats(0.01, 1))
def test_one_more_failure_never_improves_a_percentile(values: list[float], level: float) -> None:
    assert percentile(np.array([*values, INF]), level) >= percentile(np.array(values), level)


@given(st.integers(1, 5000), st.floats(0.001, 1))
def test_rank_covers_at_least_the_level(n: int, level: float) -> None:
    at = rank(n, level)
    assert 1 <= at <= n
    assert at / n >= level - 1e-9
    assert at == 1 or (at - 1) / n < level


@pytest.mark.parametrize(("level", "fewest"), [(0.99, 368), (0.95, 72), (0.5, 6)])
def test_enough_to_bound(level: float, fewest: int) -> None:
    assert enough_to_bound(fewest, level)
    assert not enough_to_bound(fewest - 1, level)
    assert not enough_to_bound(0, level)
