from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.explain.grid import MOST_BUCKETS, Grid

edges = st.tuples(st.integers(-50, 250), st.integers(0, 120))


@given(st.lists(edges, max_size=12))
def test_against_counting_every_nanosecond(intervals: list[tuple[int, int]]) -> None:
    grid = Grid(0, 10, 20)
    began = np.array([begin for begin, _ in intervals], np.int64)
    ended = began + np.array([length for _, length in intervals], np.int64)
    counted = np.zeros(200)
    for begin, end in zip(began, ended, strict=True):
        counted[max(begin, 0) : max(min(end, 200), 0)] += 1
    assert grid.paint(began, ended) == pytest.approx(counted.reshape(20, 10).mean(axis=1), abs=1e-9)


def test_a_value_holds_since_the_value_before_it() -> None:
    grid = Grid(0, 10, 8)
    filled = grid.fill(np.array([20, 40]), np.array([1.0, 3.0]))
    assert filled.tolist() == [0, 1, 3, 3, 0, 0, 0, 0]
    early = grid.fill(np.array([20, 40]), np.array([1.0, 3.0]), lead_ns=10)
    assert early.tolist() == [1, 3, 3, 3, 0, 0, 0, 0]


def test_a_sampler_that_was_away_for_long_fills_half_a_second() -> None:
    grid = Grid(0, 100_000_000, 50)
    filled = grid.fill(np.array([0, 4_000_000_000]), np.array([0.0, 1.0]))
    assert filled.sum() == 5


def test_a_long_stretch_has_wider_buckets() -> None:
    grid = Grid.over(0, int(7200e9))
    assert grid.size <= MOST_BUCKETS
    assert grid.size * grid.bucket_ns >= 7200e9
