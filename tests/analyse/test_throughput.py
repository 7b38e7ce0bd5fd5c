from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.latency import latencies_of
from redline.analyse.throughput import SLICES, block_length, mean_in_flight, rates_of
from redline.analyse.window import SteadyWindow
from redline.store.requests import Requests
from tests.analyse.traffic import Row, ns, requests_of


def window(start_ms: float, end_ms: float) -> SteadyWindow:
    return SteadyWindow(ns(start_ms), ns(end_ms), True)


ROWS = [
    Row(0, chunks=[100, 600, 1100], tokens=[1, 2, 1], finished=1101, prompt_tokens=10),
    Row(0, chunks=[700, 800], tokens=[1, 1], finished=801, prompt_tokens=20),
    Row(900, chunks=[950, 960], tokens=[1, 1], status="reset", finished=961, prompt_tokens=40),
    Row(900, chunks=[990], tokens=[1], status="cancelled", finished=1200, prompt_tokens=80),
    Row(0, chunks=[550], tokens=[3], finished=551, warmup=True, prompt_tokens=160),
]


def rates(rows: list[Row], start: float, end: float, good: list[bool] | None = None) -> dict[str, float]:
    made = requests_of(*rows)
    mask = None if good is None else np.array(good)
    return {name: rate.value for name, rate in rates_of(made, latencies_of(made), window(start, end), mask).items()}


def test_by_hand_in_a_window_of_half_a_second() -> None:
    found = rates(ROWS, 500, 1000, good=[False, True, False])
    # 600: 2 tokens; 700, 800: 1 each; 950, 960: 1 each; 990: 1; warm-up 550: 3
    assert found["output_tokens_per_s"] == pytest.approx(10 / 0.5)
    # first tokens in the window: requests 2, 3, 4 and the warm-up
    assert found["total_tokens_per_s"] == pytest.approx((10 + 20 + 40 + 80 + 160) / 0.5)
    # 2 of 4 tokens, 2 of 2, the warm-up 3 of 3; nothing of the failed one
    assert found["requests_per_s"] == pytest.approx((2 / 4 + 1 + 1) / 0.5)
    assert found["goodput_per_s"] == pytest.approx(1 / 0.5)
    assert found["sent_per_s"] == pytest.approx(2 / 0.5)


def test_the_window_s_end_is_outside() -> None:
    rows = [Row(0, chunks=[500, 1000])]
    assert rates(rows, 500, 1000)["output_tokens_per_s"] == 2.0
    assert "goodput_per_s" not in rates(rows, 500, 1000)


def test_requests_and_tokens_tell_the_same_story() -> None:
    """Ten clients in step, then ten that wait for each other: tokens per request are the same in any window."""
    in_step = [Row(400 * i, chunks=[400 * i + 40 * k for k in range(1, 11)]) for i in range(10) for _ in range(10)]
    queue = [Row(0, chunks=[4000 + 40 * i + 4 * k for k in range(1, 11)]) for i in range(100)]
    for rows in (in_step, queue):
        for start in range(4000, 7000, 170):
            found = rates(rows, start, start + 650)
            assert found["output_tokens_per_s"] == pytest.approx(10 * found["requests_per_s"])


def test_an_empty_window_has_no_rate() -> None:
    assert all(math.isnan(value) for value in rates(ROWS, 500, 500, good=[True] * 3).values())


def test_in_flight() -> None:
    made = requests_of(*ROWS)
    assert mean_in_flight(made, window(0, 500), ns(1200)) == 3
    assert mean_in_flight(made, window(1101, 1200), ns(1200)) == pytest.approx(1)
    assert mean_in_flight(requests_of(), window(0, 500), ns(1200)) == 0


def test_block_is_one_request_long() -> None:
    made = requests_of(*[Row(0, chunks=[50, 100])] * 3)
    assert block_length(made, window(0, 1200)) == 10
    assert block_length(made, window(0, 100)) == SLICES // 4
    assert block_length(requests_of(), window(0, 100)) == 1


rows_st = st.lists(
    st.builds(
        lambda at, gaps, tokens: Row(
            at, chunks=(at + np.cumsum([5, *gaps])).tolist(), tokens=[tokens] * (len(gaps) + 1)
        ),
        st.integers(0, 1000),
        st.lists(st.integers(0, 100), max_size=5),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=20,
)


@given(rows_st, st.integers(0, 500), st.integers(1, 1000))
def test_never_more_than_all_there_is(rows: list[Row], start: int, length: int) -> None:
    made: Requests = requests_of(*rows)
    latencies = latencies_of(made)
    seconds = length / 1000
    found = rates_of(made, latencies, window(start, start + length), ~latencies.failed)
    assert found["output_tokens_per_s"].value * seconds <= made.output_tokens.sum() + 1e-6
    assert found["total_tokens_per_s"].value >= found["output_tokens_per_s"].value
    assert found["requests_per_s"].value * seconds <= len(rows) + 1e-6
    assert found["goodput_per_s"].value <= found["requests_per_s"].value
    # all slices together are the window
    tokens = found["output_tokens_per_s"]
    assert tokens.counts.sum() == pytest.approx(tokens.value * seconds)


@given(rows_st, st.integers(2, 10))
def test_two_windows_add_up(rows: list[Row], parts: int) -> None:
    whole = rates(rows, 0, 2000)["output_tokens_per_s"] * 2
    pieces = [rates(rows, 2000 * i // parts, 2000 * (i + 1) // parts) for i in range(parts)]
    lengths = [(2000 * (i + 1) // parts - 2000 * i // parts) / 1000 for i in range(parts)]
    total = sum(piece["output_tokens_per_s"] * length for piece, length in zip(pieces, lengths, strict=True))
    assert total == pytest.approx(whole)
