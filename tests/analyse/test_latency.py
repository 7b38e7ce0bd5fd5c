from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.latency import METRICS, latencies_of
from redline.analyse.percentile import percentile
from tests.analyse.traffic import Row, requests_of

INF = math.inf


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("ttft_ms", 50),  # from the intended start
        ("ttft_ms.sent", 45),  # from the actual send
        ("ttfat_ms", 70),  # reasoning until 70
        ("tpot_ms", 20),  # (110 - 50) / (5 - 2)
        ("e2e_ms", 112),
        ("e2e_ms.sent", 107),
    ],
)
def test_one_request_by_hand(metric: str, expected: float) -> None:
    row = Row(100, sent=105, chunks=[150, 170, 210], tokens=[2, 1, 2], finished=212, answer_first=170)
    assert latencies_of(requests_of(row)).values[metric].tolist() == pytest.approx([expected])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (Row(0, chunks=[10], tokens=[1]), math.nan),  # one token: there is no time per token after the first
        (Row(0, chunks=[10], tokens=[4]), math.nan),  # all in one chunk
        (Row(0, chunks=[10], tokens=[1], output_tokens=5), math.nan),  # usage says 5, one chunk came: cannot tell
        (Row(0, chunks=[10, 10], tokens=[1, 1]), 0.0),
        (Row(0, chunks=[10, 40], tokens=[1, 1], output_tokens=4), 10.0),  # the server's count wins
    ],
)
def test_tpot_of_odd_requests(row: Row, expected: float) -> None:
    assert latencies_of(requests_of(row)).values["tpot_ms"][0] == pytest.approx(expected, nan_ok=True)


def test_warm_up_and_cut_off_requests_do_not_count() -> None:
    rows = [Row(0, chunks=[999], warmup=True), Row(0, chunks=[10]), Row(0, chunks=[998], status="cancelled")]
    found = latencies_of(requests_of(*rows))
    assert found.row.tolist() == [1]
    assert found.headline("ttft_ms").tolist() == [10]


@pytest.mark.parametrize("status", ["connect", "http", "reset", "timeout", "malformed", "empty"])
def test_every_failure_is_infinite_in_every_latency(status: str) -> None:
    found = latencies_of(requests_of(Row(0, chunks=[10, 20], status=status), Row(0, chunks=[10, 20])))
    for metric in METRICS:
        assert found.values[metric][0] == INF
        assert found.headline(metric).tolist().count(INF) == 1
        assert np.isfinite(found.good(metric)).all()
        assert len(found.good(metric)) == 1


def test_an_answer_that_was_not_streamed_has_no_ttft() -> None:
    found = latencies_of(requests_of(Row(0, finished=80, output_tokens=5)))
    assert len(found.headline("ttft_ms")) == 0
    assert found.headline("e2e_ms").tolist() == [80]


def test_no_request_at_all() -> None:
    found = latencies_of(requests_of())
    assert len(found) == 0
    assert all(len(found.headline(metric)) == 0 for metric in METRICS)
    assert all(math.isnan(value) for value in found.gaps.percentiles([0.5, 0.99]))


rows_st = st.lists(
    st.builds(
        lambda start, first, gaps, status: Row(
            start, chunks=(start + first + np.cumsum([0, *gaps])).tolist(), status=status
        ),
        st.integers(0, 1000),
        st.integers(1, 500),
        st.lists(st.integers(0, 50), max_size=6),
        st.sampled_from(["ok", "ok", "reset", "cancelled"]),
    ),
    min_size=1,
    max_size=20,
)


@given(rows_st, st.integers(0, 10_000))
def test_shifting_all_of_time_changes_nothing(rows: list[Row], shift: int) -> None:
    before = latencies_of(requests_of(*rows))
    for row in rows:
        row.intended += shift
        row.chunks = [at + shift for at in row.chunks]
    after = latencies_of(requests_of(*rows))
    for metric in METRICS:
        np.testing.assert_allclose(after.values[metric], before.values[metric])
    np.testing.assert_allclose(after.gaps.ms, before.gaps.ms)


@given(rows_st, st.randoms(use_true_random=False))
def test_the_order_of_requests_changes_nothing(rows: list[Row], random: object) -> None:
    before = latencies_of(requests_of(*rows))
    random.shuffle(rows)  # type: ignore[attr-defined]
    after = latencies_of(requests_of(*rows))
    for metric in METRICS:
        for level in (0.5, 0.99):
            a, b = (percentile(found.headline(metric), level) for found in (before, after))
            assert a == b or (math.isnan(a) and math.isnan(b))
    assert before.gaps.percentiles([0.5, 0.9]) == pytest.approx(after.gaps.percentiles([0.5, 0.9]), nan_ok=True)


@given(rows_st)
def test_failing_one_request_more_only_worsens(rows: list[Row]) -> None:
    before = latencies_of(requests_of(*rows))
    rows[0].status = "reset"
    after = latencies_of(requests_of(*rows))
    for metric in ("ttft_ms", "e2e_ms"):
        for level in (0.5, 0.9, 0.99):
            a, b = (percentile(found.headline(metric), level) for found in (before, after))
            assert math.isnan(a) or b >= a
