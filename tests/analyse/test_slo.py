from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.latency import latencies_of
from redline.analyse.slo import met, wilson
from tests.analyse.traffic import Row, requests_of

ROWS = [
    Row(0, chunks=[50, 60, 70], finished=71),  # ttft 50, tpot 10, itl 10, e2e 71
    Row(0, chunks=[50, 60, 90], finished=91),  # tpot 20, one gap of 30
    Row(0, chunks=[20], finished=21),  # one token
    Row(0, chunks=[10, 11, 12], status="reset"),
    Row(0, finished=30, output_tokens=3),  # not streamed
]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({}, [True, True, True, False, True]),
        ({"ttft_ms": 50}, [True, True, True, False, False]),
        ({"ttft_ms": 49.9}, [False, False, True, False, False]),
        ({"tpot_ms": 15}, [True, False, True, False, True]),
        ({"itl_ms": 15}, [True, False, True, False, True]),
        ({"e2e_ms": 80}, [True, False, True, False, True]),
        ({"ttft_ms": 50, "e2e_ms": 30}, [False, False, True, False, False]),
    ],
)
def test_met_by_hand(terms: dict[str, float], expected: list[bool]) -> None:
    assert met(latencies_of(requests_of(*ROWS)), terms).tolist() == expected


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # from the formula, worked out with 50 digits
        (0, 10, 0.0, 0.2775327998628892),
        (10, 10, 0.7224672001371108, 1.0),
        (5, 10, 0.236593090512564, 0.763406909487436),
        (95, 100, 0.8882495307680809, 0.9784563208456320),
    ],
)
def test_wilson_by_hand(hits: int, n: int, low: float, high: float) -> None:
    found = wilson(hits, n)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) is None


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_holds_the_share_and_narrows(n: int, share: float) -> None:
    hits = round(share * n)
    small, large = wilson(hits, n), wilson(hits * 4, n * 4)
    assert small is not None
    assert large is not None
    assert 0 <= small.low <= hits / n <= small.high <= 1
    assert large.high - large.low < small.high - small.low
