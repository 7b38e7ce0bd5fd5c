from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.curves import SHARES, SLICES, distributions, timeline
from redline.analyse.window import find_window
from tests.analyse.traffic import MS, Row, S, closed_loop, requests_of


def test_a_distribution_of_few_values_holds_them_all() -> None:
    found = distributions(requests_of(*[Row(0, chunks=[10 * i, 10 * i + 5]) for i in range(1, 5)]))
    assert found["ttft_ms"].value.tolist() == [10, 20, 30, 40]
    assert found["ttft_ms"].share.tolist() == [0.25, 0.5, 0.75, 1]
    assert set(found["itl_ms"].value) == {5}


def test_failures_keep_a_distribution_below_one() -> None:
    rows = [Row(0, chunks=[10, 20])] * 3 + [Row(0, status="reset", asked_output_tokens=2)]
    found = distributions(requests_of(*rows))
    assert found["ttft_ms"].share.max() == 0.75
    assert found["e2e_ms"].share.max() == 0.75
    assert np.isfinite(found["itl_ms"].value).all()


def test_nothing_to_draw() -> None:
    for found in distributions(requests_of()).values():
        assert len(found.value) == len(found.share) == 0


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=300))
def test_a_distribution_is_bounded_and_rises(values: list[int]) -> None:
    found = distributions(requests_of(*[Row(0, chunks=[float(value)]) for value in values]))["ttft_ms"]
    assert len(found.value) <= len(SHARES)
    assert (np.diff(found.value) >= 0).all()
    assert (np.diff(found.share) > 0).all()
    assert found.value[-1] == max(values)
    for value, share in zip(found.value, found.share, strict=True):
        assert np.mean(np.array(values) <= value) >= share - 1e-12


def test_a_timeline_by_hand() -> None:
    rows = [Row(0, chunks=[5, 15], finished=600), Row(0, chunks=[9, 599], finished=600)]
    made = requests_of(*rows)
    found = timeline(made, find_window(made, S, S + 600 * MS), S, S + 600 * MS - 1)
    assert len(found.seconds) == SLICES
    assert found.seconds[0] == pytest.approx(0.005)
    assert found.tokens_per_s[0] == pytest.approx(2 / 0.01)
    assert found.tokens_per_s.sum() * 0.01 == pytest.approx(4)
    assert found.in_flight.tolist() == pytest.approx([2.0] * SLICES)
    assert (found.ttft_p50[0], found.ttft_max[0]) == (5, 9)
    assert np.isnan(found.ttft_p50[1:]).all()
    assert (found.itl_p50[1], found.itl_max[59]) == (10, 590)
    assert found.steady == pytest.approx((0, 0.6))


def test_the_highest_value_is_never_lost() -> None:
    made, (start, end) = closed_loop(5, duration_ms=3000)
    found = timeline(made, find_window(made, start, end), start, end)
    first = made.chunk_ns[made.chunk_start[:-1]] - made.intended_ns
    assert np.nanmax(found.ttft_max) == pytest.approx(first.max() / MS)


def test_an_empty_point_has_an_empty_timeline() -> None:
    made = requests_of()
    found = timeline(made, find_window(made, S, S), S, S)
    assert found.tokens_per_s.sum() == 0
    assert np.isnan(found.ttft_max).all()
