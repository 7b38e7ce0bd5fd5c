from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.comparison import Ratio
from redline.analyse.finding import Interval
from redline.analyse.slo import promised_share
from redline.report.numbers import (
    FEW_NOTE,
    band,
    data_size,
    few_notes,
    metric_name,
    number,
    percentile_text,
    points,
    ratio_text,
)

INF = math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.1234, "0.123"), (0.9994, "0.999"), (0.99951, "1.00"), (1.234, "1.23"), (9.994, "9.99"),
        (9.996, "10.0"), (12.34, "12.3"), (99.94, "99.9"), (99.96, "100"), (123.4, "123"), (1234.5, "1,234"),
        (math.nan, "–"), (INF, "∞"), (-INF, "-∞"), (-12.34, "-12.3"), (0.01234, "0.0123"), (0.0004, "0.0004"),
        (-0.00031, "-0.00031"), (0.00001234, "1.23e-05"), (0.09996, "0.100"),
    ],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_a_percentile_of_too_few_values_is_marked() -> None:
    row = [percentile_text(12.34, level, 99) for level in (0.5, 0.99)]
    assert row == ["12.3", "12.3†"]
    assert few_notes([["a"], row]) == (FEW_NOTE,)
    assert percentile_text(12.34, 0.99, 100) == "12.3"
    assert percentile_text(math.nan, 0.99, 3) == "–"
    assert few_notes([["12.3"]]) == ()


@given(st.floats(0.001, 1e9))
def test_a_written_number_is_the_number(value: float) -> None:
    written = float(number(value).replace(",", ""))
    assert written == pytest.approx(value, rel=0.006, abs=0.0006)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.06e9, "1.06 GB"), (512e6, "512 MB"), (62e9, "62.0 GB"), (123e3, "0.123 MB"), (0, "0 MB"), (math.nan, "–")],
)
def test_data_size(value: float, text: str) -> None:
    assert data_size(value) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (None, ""),
        (Interval(1, 2), "1.00–2.00"),
        (Interval(3, 3), ""),
        (Interval(INF, INF), ""),
        (Interval(9, INF), "9.00–∞"),
    ],
)
def test_band(interval: Interval | None, text: str) -> None:
    assert band(interval) == text


@pytest.mark.parametrize(
    ("value", "interval", "outcome", "text"),
    [
        (3.21, (3.10, 3.30), "better", "3.2× [3.1–3.3]"),
        (1.97, (1.96, 1.984), "better", "1.97× [1.96–1.98]"),
        (1.018, (1.004, 1.03), "better", "1.018× [1.004–1.030]"),
        (0.5, (0.49999, 0.50001), "better", "0.5000× [0.5000–0.5000]"),
        (5.2, (4.5, 6.1), "better", "5.2× [4.5–6.1]"),
        (66, (52, 103), "better", "66× [52–103]"),
        (0.9876, (0.98, 0.995), "better", "0.988× [0.980–0.995]"),  # as many digits as it takes to see that it is not 1
        (1.01, (0.95, 1.07), "no detectable difference", "≈ 1.01× [0.95–1.07]"),
        (0.77, (0.7, 0.9), "unknown", "0.770× ?"),
        (INF, None, "unknown", "?"),
        (0.0, None, "unknown", "?"),
        (math.nan, None, "unknown", "–"),
        (2.0, None, "better", "2.00×"),
        (2.0, (1.5, INF), "better", "2.00× [1.50–∞]"),
    ],
)
def test_ratio_text(value: float, interval: tuple[float, float] | None, outcome: str, text: str) -> None:
    ratio = Ratio("x", value, Interval(*interval) if interval else None, outcome)
    assert ratio_text(ratio) == text


def test_ratio_text_of_nothing() -> None:
    assert ratio_text(None) == "–"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ttft_ms.p50", "TTFT p50"),
        ("ttft_ms.ok.p99", "TTFT ok p99"),
        ("output_tokens_per_s", "output throughput"),
        ("x", "x"),
    ],
)
def test_metric_name(name: str, text: str) -> None:
    assert metric_name(name) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.0025, "0.25"), (0.034, "3.4"), (0.99, "99"), (1, "100"), (-1, "-100"), (12.5, "1,250")]
)
def test_points_are_written_out(share: float, text: str) -> None:
    assert points(share) == text


@pytest.mark.parametrize(("share", "text"), [(0.95, "95%"), (0.999, "99.9%"), (0.57, "57%"), (1.0, "100%")])
def test_a_promise_is_not_rounded(share: float, text: str) -> None:
    assert promised_share(share) == text
