from __future__ import annotations

import math
from typing import Any

import pytest

from redline.analyse.stages import by_stage, whole_window
from redline.analyse.summary import summarise_point
from redline.analyse.turns import by_turn
from redline.spec.workload import SLOW_READER
from tests.analyse.traffic import MS, Row, S, requests_of

PLAN = [
    {"label": "4 req/s", "from_s": 0.0, "until_s": 1.0, "open": True, "mean": 4.0},
    {"label": "2 req/s", "from_s": 1.0, "until_s": 3.0, "open": True, "mean": 2.0},
]


def answered(at: float, ttft: float = 50, **changes: Any) -> Row:
    return Row(intended=at, chunks=[at + ttft, at + ttft + 10, at + ttft + 20], **changes)


def test_a_request_belongs_to_the_stage_in_which_it_was_due() -> None:
    late = answered(900, ttft=800)  # answered in the second stage, counted in the first
    requests = requests_of(
        answered(-500, warmup=True), answered(0), answered(500), late, answered(1000), answered(2000, ttft=300),
        Row(intended=2500, status="timeout"),
    )  # fmt: skip
    first, second = by_stage(requests, PLAN, S, S + 3000 * MS, {"ttft_ms": 100})
    assert (first.sent, first.had, first.asked, first.failed) == (3, 3, 4, 0)
    assert (second.sent, second.had, second.failed) == (3, 1.5, 1)
    assert (first.ttft_ms_p50, first.ttft_ms_p99) == (50, 800)
    assert (second.ttft_ms_p50, second.ttft_ms_p99) == (300, math.inf)
    assert (first.goodput_per_s, second.goodput_per_s) == (2, 0.5)
    assert first.finished_per_s == 2
    assert first.itl_ms_p50 == 10
    assert (first.counted, first.gaps) == (3, 6)


def verdict(kind: str, value: float, outcome: dict[str, Any], count: int = 150, **row: Any) -> list[str]:
    # ever faster: a ramp from 10 to 90 per second in three seconds
    at = [3000 * ((0.0126 + 0.987 * i / count) ** 0.5 - 0.1122) / 0.888 for i in range(count)]
    requests = requests_of(*(answered(t, **row) for t in at))
    told = {"measured_from_ns": S, "planned": count, "sent": count, "stopped_by": "duration"} | outcome
    found = summarise_point(
        requests, window_hint=(S, S + 3100 * MS), slo={}, attainment=0.95, outcome=told, seed=1, run_id="r",
        asked=(kind, value),
    )  # fmt: skip
    return list(found.verdict.reasons)


def test_a_ramp_is_not_blamed_for_never_being_steady() -> None:
    plan = {"stages": [{"label": "10 → 90 req/s", "from_s": 0, "until_s": 3, "open": True, "mean": 50}]}
    assert verdict("stages", 50, {"traffic": plan}, ttft=900) == []
    assert verdict("trace", 1, {"traffic": {}}, ttft=900) == []
    assert verdict("poisson", 50, {}, ttft=900) != []


def test_a_plan_that_was_not_sent_is_said() -> None:
    assert any("sent of 200" in reason for reason in verdict("stages", 50, {"planned": 200, "traffic": {}}))
    assert verdict("stages", 50, {"planned": 200, "traffic": {}, "stopped_by": "interrupted"}) != []


def test_clients_that_were_not_there_are_said() -> None:
    plan = {"stages": [{"label": "40 clients", "from_s": 0, "until_s": 3, "open": False, "mean": 40}]}
    assert any("in stage 1 (40 clients)" in reason for reason in verdict("stages-closed", 40, {"traffic": plan}))


def test_bursty_arrivals_may_stray_further() -> None:
    few = {"traffic": {"burstiness": 0.05}}
    asked = 120.0
    assert not any("not reached" in reason for reason in verdict("gamma", asked, few))
    assert any("not reached" in reason for reason in verdict("constant", asked, few))


def test_the_window_of_an_unsteady_point_is_all_of_it() -> None:
    requests = requests_of(answered(-500, warmup=True), answered(100), answered(1500))
    window = whole_window(requests, S, S + 5000 * MS)
    assert (window.start_ns, window.end_ns, window.found, window.note) == (S, S + 1570 * MS, True, "")


def test_turns_one_by_one_and_the_late_ones_together() -> None:
    rows = [
        answered(
            100 * turn, ttft=40 + turn, session=0, turn=turn, prompt_tokens=100 + 50 * turn, cached_tokens=50 * turn
        )
        for turn in range(14)
    ]
    found = by_turn(requests_of(*rows, answered(0)))
    assert [one.label for one in found] == [*map(str, range(1, 11)), "11–14"]
    assert (found[2].prompt_tokens, found[2].cached_share) == (200, 0.5)
    assert found[2].ttft_ms_p50 == pytest.approx(42)
    assert found[-1].requests == 4
    assert by_turn(requests_of(answered(0))) == []


def test_slow_readers_and_abandoned_requests_are_in_no_latency() -> None:
    rows = [answered(10 * i) for i in range(5)]
    odd = [answered(60, ttft=9000, request_class=SLOW_READER), answered(70, ttft=9000, status="abandoned")]
    summary = summarise_point(
        requests_of(*rows, *odd), window_hint=(S, S + 9999 * MS), slo={}, attainment=0.95, outcome={}, seed=1,
        run_id="r",
    )  # fmt: skip
    assert summary.value("ttft_ms.p99") == 50
    assert summary.counts["counted"] == 5
    assert summary.counts["abandoned"] == 1
