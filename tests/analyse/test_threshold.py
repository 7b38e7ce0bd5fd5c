from __future__ import annotations

import math
from dataclasses import replace

import pytest

from redline.analyse.comparison import EngineResult, compare_engines
from redline.analyse.finding import Interval, Verdict
from redline.analyse.summary import PointSummary, summarise_point
from redline.analyse.threshold import CANNOT_TELL, FAIL, NOT_JUDGED, PASS, decide, judge_thresholds
from redline.spec.threshold import METRICS, parse_threshold
from tests.analyse.traffic import closed_loop

INF = math.inf


def summary(seed: int = 0, itl_ms: float = 10.0, clients: int = 8) -> PointSummary:
    requests, hint = closed_loop(clients, duration_ms=6000, itl_ms=itl_ms, seed=seed)
    return summarise_point(
        requests, window_hint=hint, slo={"ttft_ms": 100.0}, attainment=0.9, outcome={}, seed=seed, run_id="r"
    )


@pytest.fixture(scope="module")
def results() -> list[EngineResult]:
    return [
        EngineResult("m", "first", {("closed", 8.0): (summary(),)}),
        EngineResult("m", "second", {("closed", 8.0): (summary(1, 12.0),)}),
    ]


@pytest.mark.parametrize(
    ("sign", "low", "high", "outcome"),
    [
        ("<", 1, 2, PASS), ("<", 11, 12, FAIL), ("<", 9, 11, CANNOT_TELL), (">", 1, 2, FAIL), (">", 11, INF, PASS),
        ("<", 9, INF, CANNOT_TELL), ("<", INF, INF, FAIL), ("<", 9, 10, CANNOT_TELL),
    ],
)  # fmt: skip
def test_the_whole_interval_decides(sign: str, low: float, high: float, outcome: str) -> None:
    assert decide(sign, 10.0, (low + high) / 2, Interval(low, high))[0] == outcome


@pytest.mark.parametrize(
    ("sign", "value", "outcome"),
    [("<", 9.0, PASS), ("<", 10.0, FAIL), (">", 10.0, FAIL), (">", 11.0, PASS), ("<", INF, FAIL),
     (">", INF, PASS), ("<", math.nan, NOT_JUDGED)],
)  # fmt: skip
def test_without_an_interval_the_number_decides(sign: str, value: float, outcome: str) -> None:
    assert decide(sign, 10.0, value, None)[0] == outcome


def test_each_applies_where_it_says(results: list[EngineResult]) -> None:
    texts = ["itl_ms.p50 < 11", "ratio.itl_ms.p50 < 1.05", "itl_ms.p50 < 11 on second", "itl_ms.p50 < 9 @ 9 clients"]
    found = judge_thresholds(compare_engines(results).models, [parse_threshold(text) for text in texts])
    assert [(one.engine, one.outcome) for one in found] == [
        ("first", PASS), ("second", FAIL), ("second", FAIL), ("second", FAIL), ("", NOT_JUDGED),
    ]  # fmt: skip
    assert "nothing that was measured" in found[-1].note


@pytest.mark.parametrize(
    ("state", "reasons", "text", "outcome"),
    [
        ("valid", (), "itl_ms.p50 < 11", PASS),
        ("degraded", ("few requests",), "itl_ms.p50 < 11", PASS),
        ("client-bound", ("32% of TTFT p99 passed on the client's side",), "itl_ms.p50 < 11", NOT_JUDGED),
        ("client-bound", ("32% of TTFT p99 passed on the client's side",), "itl_ms.p50 < 1", NOT_JUDGED),
        ("invalid", ("12% of the requests failed",), "itl_ms.p50 < 1", NOT_JUDGED),
        ("invalid", ("12% of the requests failed",), "failed_share > 50%", FAIL),
        ("invalid", ("12% of the requests failed",), "failed_share < 1%", NOT_JUDGED),
        ("client-bound", ("3 requests never left",), "failed_share > 50%", NOT_JUDGED),
    ],
)
def test_a_verdict_that_forbids_belief_forbids_judging(
    results: list[EngineResult], state: str, reasons: tuple[str, ...], text: str, outcome: str
) -> None:
    """Nothing failed on the simulated server, so the wrong side of a limit on failures is the one above it."""
    (model,) = compare_engines(results[:1]).models
    (point,) = model.points
    engine = replace(point.engines[0], verdict=Verdict(state, reasons, tuple(state for _ in reasons)))
    model = replace(model, points=(replace(point, engines=(engine,)),))
    (found,) = judge_thresholds([model], [parse_threshold(text)])
    assert found.outcome == outcome
    assert outcome != NOT_JUDGED or found.note == f"the point is {state}: {reasons[0]}"


def test_a_ratio_that_nobody_knows_is_not_judged(results: list[EngineResult]) -> None:
    few = [EngineResult(one.model, one.label, {("closed", 8.0): (summary(n),)}) for n, one in enumerate(results)]
    models = compare_engines(few).models
    wide = judge_thresholds(models, [parse_threshold("ratio.itl_ms.p50 < 1.001")])
    assert [one.outcome for one in wide] == [CANNOT_TELL]
    alone = judge_thresholds(compare_engines(few[:1]).models, [parse_threshold("ratio.itl_ms.p50 < 1.05 on second")])
    assert [one.outcome for one in alone] == [NOT_JUDGED]


def test_every_name_leads_to_a_number(results: list[EngineResult]) -> None:
    comparison = compare_engines(results).models
    second = comparison[0].points[0].engines[1]
    for name in METRICS:
        known = second.ratios if name.startswith("ratio.") else second.numbers
        assert name.removeprefix("ratio.") in known, name
