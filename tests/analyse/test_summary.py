from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from redline.analyse.summary import PointSummary, summarise_point
from redline.store.requests import Requests
from redline.units import DEFINITIONS
from tests.analyse.traffic import MS, Row, S, closed_loop, requests_of


def summary(requests: Requests, hint: tuple[int, int], **changes: Any) -> PointSummary:
    options: dict[str, Any] = {"slo": {}, "attainment": 0.95, "outcome": {}, "seed": 7, "run_id": "run-1"}
    return summarise_point(requests, window_hint=hint, **(options | changes))


def test_a_point_by_hand() -> None:
    rows = [
        Row(i * 100, chunks=[i * 100 + 20 + i, i * 100 + 50, i * 100 + 80], finished=i * 100 + 90) for i in range(10)
    ]
    rows[9].status = "timeout"
    rows.append(Row(0, chunks=[500], warmup=True))
    rows.append(Row(1000, status="cancelled", finished=1050))
    found = summary(requests_of(*rows), (S, S + 1050 * MS), slo={"ttft_ms": 24.0})
    assert found.value("ttft_ms.p50") == 24  # 20 … 28 and one failure: the fifth
    assert found.value("ttft_ms.p90") == 28
    assert found.value("ttft_ms.p95") == math.inf
    assert found.value("ttft_ms.ok.p99") == 28
    assert found.value("ttft_ms.ok.mean") == pytest.approx(24)
    assert found.value("e2e_ms.p50") == 90
    assert found.value("failed_share") == 0.1
    assert found.value("cut_off_share") == pytest.approx(1 / 11)
    assert found.value("slo_attainment") == 0.5
    assert "below the 95%" in found.findings["slo_attainment"].note
    assert found.value("output_tokens") == 3
    assert found.value("nonsense") is not None
    assert math.isnan(found.value("nonsense"))
    assert found.counts == {
        "measured": 11, "counted": 10, "failed": 1, "warmup": 1, "ok": 9, "timeout": 1, "cancelled": 1,
    }  # fmt: skip
    assert found.tokens_per_chunk == {1: 27}
    assert found.token_sources == {"usage": 9}
    assert found.verdict.state == "degraded"


def test_every_finding_is_defined_and_proves_itself() -> None:
    requests, hint = closed_loop(4, duration_ms=3000)
    found = summary(requests, hint, slo={"ttft_ms": 100.0, "itl_ms": 100.0})
    assert {"goodput_per_s", "slo_attainment", "in_flight", "cached_share", "itl_ms.p99"} <= set(found.findings)
    for name, finding in found.findings.items():
        assert finding.name == name
        assert finding.definition in DEFINITIONS
        assert finding.unit == DEFINITIONS[finding.definition].unit
        assert finding.runs == ("run-1",)
        if finding.interval is not None:
            assert finding.interval.low <= finding.value <= finding.interval.high, name


def test_the_same_input_gives_the_same_output() -> None:
    requests, hint = closed_loop(3, duration_ms=2000, fail=0.1)
    first, again = summary(requests, hint), summary(requests, hint)
    assert first.findings == again.findings
    assert all((first.draws[name] == again.draws[name]).all() for name in first.draws)
    other = summary(requests, hint, seed=8)
    assert other.findings["ttft_ms.p50"].value == first.findings["ttft_ms.p50"].value
    assert (other.draws["ttft_ms.p50"] != first.draws["ttft_ms.p50"]).any()


def test_without_failures_headline_and_success_only_are_one_number() -> None:
    requests, hint = closed_loop(3, duration_ms=2000)
    found = summary(requests, hint).findings
    for metric in ("ttft_ms", "itl_ms", "e2e_ms", "tpot_ms"):
        for level in ("p50", "p99"):
            plain, good = found[f"{metric}.{level}"], found[f"{metric}.ok.{level}"]
            assert (plain.value, plain.interval) == (good.value, good.interval)


def test_percentiles_rise_and_failures_worsen_them() -> None:
    clean = summary(*closed_loop(5, duration_ms=3000, seed=1))
    broken = summary(*closed_loop(5, duration_ms=3000, seed=1, fail=0.05))
    for metric in ("ttft_ms", "itl_ms", "e2e_ms", "tpot_ms"):
        for found in (clean, broken):
            values = [found.value(f"{metric}.{level}") for level in ("p50", "p90", "p95", "p99")]
            assert values == sorted(values)
        assert broken.value(f"{metric}.p99") == math.inf
        assert math.isfinite(broken.value(f"{metric}.ok.p99"))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_request(n: int) -> None:
    found = summary(requests_of(*[Row(0, chunks=[10, 20])] * n), (S, S + 20 * MS), slo={"e2e_ms": 50.0})
    assert found.counts["counted"] == n
    assert found.findings["ttft_ms.p50"].interval is None
    assert math.isnan(found.value("ttft_ms.p50")) == (n == 0)
    assert found.findings["ttft_ms.p50"].note
    assert found.verdict.state == ("invalid" if n == 0 else "degraded")


def test_all_failed() -> None:
    found = summary(requests_of(*[Row(i, status="connect", finished=i + 1) for i in range(20)]), (S, S + 30 * MS))
    assert found.verdict.state == "invalid"
    assert found.value("ttft_ms.p50") == math.inf
    assert math.isnan(found.value("ttft_ms.ok.p50"))
    assert found.value("failed_share") == 1.0


def test_notes_of_the_load_generator_are_kept() -> None:
    requests, hint = closed_loop(2, duration_ms=500)
    assert summary(requests, hint, outcome={"notes": ["salted"]}).notes == ("salted",)
    assert summary(requests, hint, outcome={"notes": "one"}).notes == ("one",)
    assert summary(requests, hint, outcome={}).notes == ()


def test_several_tokens_per_chunk_show_in_itl_and_histogram() -> None:
    found = summary(*closed_loop(2, duration_ms=3000, per_chunk=4))
    assert found.tokens_per_chunk.keys() == {4}
    assert found.value("itl_ms.p50") == 0  # three of four tokens arrive with the one before
    assert found.value("itl_ms.p90") > 30
    assert found.value("tpot_ms.p50") == pytest.approx(10, rel=0.2)


def test_intervals_cover_the_truth() -> None:
    """Of 120 points of the same server, about 95 % of the intervals hold its true median and mean."""
    hits = {"ttft_ms.p50": 0, "ttft_ms.ok.mean": 0}
    rng = np.random.default_rng(0)
    truth = {"ttft_ms.p50": 40.0, "ttft_ms.ok.mean": 40.0 * math.exp(0.3**2 / 2)}
    for i in range(120):
        at = 40 * rng.lognormal(0, 0.3, 150)
        rows = [Row(k * 100, chunks=[k * 100 + first, k * 100 + first + 5]) for k, first in enumerate(at)]
        found = summary(requests_of(*rows), (S, S + 15_100 * MS), seed=i)
        for name, value in truth.items():
            band = found.findings[name].interval
            assert band is not None
            hits[name] += band.low <= value <= band.high
    assert min(hits.values()) >= 0.88 * 120


def test_only_what_was_in_flight_at_the_end_counts_as_cut_off() -> None:
    """Clients that hang up or read slowly are in no percentile, and nobody cut them off."""
    rows = [Row(i * 100, chunks=[i * 100 + 20, i * 100 + 90]) for i in range(10)]
    rows[0].status, rows[1].request_class = "abandoned", "slow reader"
    rows[2].status = "cancelled"
    assert summary(requests_of(*rows), (S, S + 1000 * MS)).value("cut_off_share") == pytest.approx(1 / 10)
