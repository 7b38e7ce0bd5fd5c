from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.gaps import Gaps, gaps_of, tokens_per_chunk
from redline.analyse.percentile import percentile
from tests.analyse.traffic import Row, requests_of


def spelled_out(gaps: Gaps) -> list[float]:
    """Every gap as a number: the slow truth."""
    return sorted([*gaps.ms.tolist(), *[0.0] * int(gaps.zeros.sum()), *[math.inf] * int(gaps.missing.sum())])


@pytest.mark.parametrize(
    ("chunks", "tokens", "expected"),
    [
        ([10, 20, 35], [1, 1, 1], [10, 15]),
        ([10, 20], [3, 2], [0, 0, 0, 10]),  # two zeros inside the first chunk, one inside the second
        ([10], [1], []),
        ([10], [4], [0, 0, 0]),
        ([10, 20, 30], [1, 0, 1], [20]),  # a chunk without a token ends no gap
        ([10, 10], [1, 1], [0]),
        ([], [], []),
    ],
)
def test_gaps_of_one_request(chunks: list[float], tokens: list[int], expected: list[float]) -> None:
    assert spelled_out(gaps_of(requests_of(Row(0, chunks=chunks, tokens=tokens)))) == pytest.approx(expected)


def test_gaps_do_not_cross_requests() -> None:
    gaps = gaps_of(requests_of(Row(0, chunks=[10, 20]), Row(0, chunks=[100]), Row(0, chunks=[50, 53])))
    assert gaps.ms.tolist() == [10, 3]
    assert gaps.owner.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("failed", "missing"),
    [
        (Row(0, chunks=[10, 20], status="reset", asked_output_tokens=4), 2),
        (Row(0, status="connect", asked_output_tokens=4), 4),
        (Row(0, chunks=[10, 20, 30, 40], status="reset", asked_output_tokens=4), 1),  # it failed, so it owes
        (Row(0, status="timeout", asked_output_tokens=4000), 4),  # no more than others got
        (Row(0, status="timeout", asked_output_tokens=0), 4),
        (Row(0, chunks=[10], status="cancelled", asked_output_tokens=4), 0),
    ],
)
def test_failed_requests_owe_their_tokens(failed: Row, missing: int) -> None:
    gaps = gaps_of(requests_of(Row(0, chunks=[10, 20, 30, 40]), failed))
    assert gaps.missing.tolist() == [0, missing]


def test_without_any_success_a_failure_owes_one() -> None:
    assert gaps_of(requests_of(Row(0, status="http", asked_output_tokens=64))).missing.tolist() == [1]


def test_good_gaps_leave_failed_requests_out() -> None:
    broken = Row(0, chunks=[10, 11], tokens=[2, 1], status="reset", asked_output_tokens=9)
    gaps = gaps_of(requests_of(Row(0, chunks=[10, 30], tokens=[1, 2]), broken)).of_good()
    assert spelled_out(gaps) == [0, 20]


def test_mean_counts_the_zeros() -> None:
    assert gaps_of(requests_of(Row(0, chunks=[10, 40], tokens=[1, 3]))).mean() == 10
    assert math.isnan(gaps_of(requests_of(Row(0, chunks=[10]))).mean())
    assert gaps_of(requests_of(Row(0, chunks=[10, 20]), Row(0, status="reset"))).mean() == math.inf


def test_histogram() -> None:
    made = requests_of(Row(0, chunks=[1, 2, 3], tokens=[1, 1, 4]), Row(0, chunks=[5], tokens=[4]))
    assert tokens_per_chunk(made) == {1: 2, 4: 2}


request_st = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), max_size=8)


@given(st.lists(st.tuples(request_st, st.booleans()), min_size=1, max_size=8))
def test_percentiles_against_every_gap_spelled_out(plan: list[tuple[list[tuple[int, int]], bool]]) -> None:
    rows = []
    for chunks, fails in plan:
        at = np.cumsum([gap for gap, _ in chunks]).tolist()
        rows.append(Row(0, chunks=at, tokens=[n for _, n in chunks], status="reset" if fails else "ok"))
    gaps = gaps_of(requests_of(*rows))
    every = np.array(spelled_out(gaps))
    assert gaps.count() == len(every)
    levels = [0.01, 0.5, 0.9, 0.99, 1.0]
    for level, found in zip(levels, gaps.percentiles(levels), strict=True):
        assert found == pytest.approx(percentile(every, level), nan_ok=True)
    for limit in (0.0, 7.0, 1000.0):
        for i, found in enumerate(gaps.within(limit, 0.9)):
            own = np.array([*gaps.ms[gaps.owner == i], *[0.0] * gaps.zeros[i], *[math.inf] * gaps.missing[i]])
            assert found == (len(own) == 0 or percentile(own, 0.9) <= limit)


@given(request_st.filter(lambda chunks: sum(n for _, n in chunks) > 0))
def test_a_request_has_one_gap_less_than_tokens(chunks: list[tuple[int, int]]) -> None:
    at = np.cumsum([gap for gap, _ in chunks]).tolist()
    gaps = gaps_of(requests_of(Row(0, chunks=at, tokens=[n for _, n in chunks])))
    assert gaps.count() == sum(n for _, n in chunks) - 1
