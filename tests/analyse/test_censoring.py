from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.censoring import kaplan_meier, with_cut_off
from redline.analyse.percentile import percentile
from tests.analyse.traffic import Row, S, requests_of

INF = math.inf


@pytest.mark.parametrize(
    ("values", "ended", "level", "expected"),
    [
        ([1, 2, 3, 4], [1, 1, 1, 1], 0.5, 2),
        # 1 ends: 3/4 survive; 2 is cut: 2 at risk; 3 ends: 3/8; 4 ends: 0
        ([1, 2, 3, 4], [1, 0, 1, 1], 0.5, 3),
        ([1, 2, 3, 4], [1, 0, 1, 1], 0.25, 1),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.5, 2),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.51, INF),  # beyond what was seen
        ([5, 5], [0, 1], 0.9, INF),  # at the same time the end counts first
        ([5, 5], [0, 1], 0.5, 5),
        ([1, INF], [1, 1], 0.99, INF),
    ],
)
def test_kaplan_meier_by_hand(values: list[float], ended: list[int], level: float, expected: float) -> None:
    assert kaplan_meier(np.array(values, float), np.array(ended, bool), level) == expected


def test_kaplan_meier_of_nothing() -> None:
    assert math.isnan(kaplan_meier(np.empty(0), np.empty(0, bool), 0.5))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=50), st.sampled_from([0.1, 0.5, 0.9, 0.99]))
def test_nothing_cut_off_is_the_plain_percentile(values: list[int], level: float) -> None:
    plain = np.array(values, float)
    assert kaplan_meier(plain, np.ones(len(values), bool), level) == percentile(plain, level)


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=50))
def test_a_cut_only_moves_the_estimate_up(pairs: list[tuple[int, bool]]) -> None:
    values = np.array([value for value, _ in pairs], float)
    ended = np.array([end for _, end in pairs])
    assert kaplan_meier(values, ended, 0.5) >= percentile(values, 0.5)


def test_recovers_the_truth_that_leaving_out_misses() -> None:
    rng = np.random.default_rng(0)
    truth, cut = rng.exponential(100, 20_000), rng.uniform(0, 200, 20_000)
    seen, ended = np.minimum(truth, cut), truth <= cut
    assert percentile(seen[ended], 0.5) < 0.7 * percentile(truth, 0.5)
    assert kaplan_meier(seen, ended, 0.5) == pytest.approx(percentile(truth, 0.5), rel=0.05)


def test_what_cut_off_requests_tell() -> None:
    rows = [
        Row(0, chunks=[10, 30], finished=31),
        Row(100, chunks=[150], finished=400, status="cancelled"),  # its first token came
        Row(100, finished=400, status="cancelled"),  # it never did
        Row(0, chunks=[5], finished=9, status="reset"),
        Row(0, chunks=[1], finished=2, warmup=True),
        Row(0, finished=70, output_tokens=3),  # answered in one piece
    ]
    values, ended = with_cut_off(requests_of(*rows), "ttft_ms", S)
    assert values.tolist() == [10, 50, 300, INF]
    assert ended.tolist() == [True, True, False, True]
    values, ended = with_cut_off(requests_of(*rows), "e2e_ms", S)
    assert values.tolist() == [31, 300, 300, INF, 70]
    assert ended.tolist() == [True, False, False, True, True]


def test_slow_readers_are_left_out_as_in_the_percentiles_beside_it() -> None:
    rows = [Row(0, chunks=[10], finished=31), Row(0, chunks=[10], finished=9000, request_class="slow reader")]
    values, _ = with_cut_off(requests_of(*rows), "e2e_ms", S)
    assert values.tolist() == [31]
