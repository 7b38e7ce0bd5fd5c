from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from redline.analyse.bootstrap import generator, interval, ratio_draws
from redline.analyse.comparison import (
    BETTER,
    SAME,
    UNKNOWN,
    WORSE,
    EngineResult,
    Pooled,
    Ratio,
    _plain_ratio,
    compare_engines,
    pool,
    worst,
)
from redline.analyse.finding import Finding, Verdict
from redline.analyse.slo import wilson
from redline.analyse.summary import PointSummary, summarise_point
from redline.analyse.window import SteadyWindow
from tests.analyse.traffic import Row, S, closed_loop, requests_of

LOAD = ("closed", 8.0)


def point(seed: int = 0, itl: float = 10.0, fail: float = 0.0, noise: float = 0.1, **changes: object) -> PointSummary:
    requests, hint = closed_loop(8, duration_ms=10_000, itl_ms=itl, ttft_ms=4 * itl, noise=noise, fail=fail, seed=seed)
    options = {"slo": {"ttft_ms": 60.0}, "attainment": 0.95, "outcome": {}, "seed": seed, "run_id": "r"} | changes
    return summarise_point(requests, window_hint=hint, **options)  # type: ignore[arg-type]


FAST, SLOW = point(1, itl=5.0), point(2, itl=10.0)


def test_a_faster_engine_is_better_in_both_directions() -> None:
    compared = compare_engines([EngineResult("m", "slow", {LOAD: (SLOW,)}), EngineResult("m", "fast", {LOAD: (FAST,)})])
    model = compared.model("m")
    assert model.reference == "slow"
    reference, other = model.points[0].engines
    assert reference.ratios == {}
    ttft, rate = other.ratios["ttft_ms.p50"], other.ratios["output_tokens_per_s"]
    assert ttft.value == pytest.approx(0.5, rel=0.1)
    assert ttft.outcome == BETTER
    assert rate.value == pytest.approx(2, rel=0.1)
    assert rate.outcome == BETTER
    assert rate.interval is not None
    assert rate.interval.low > 1.8
    back = compare_engines([EngineResult("m", "fast", {LOAD: (FAST,)}), EngineResult("m", "slow", {LOAD: (SLOW,)})])
    turned = back.model("m").points[0].engines[1].ratios
    assert turned["ttft_ms.p50"].outcome == WORSE
    assert turned["ttft_ms.p50"].value == pytest.approx(1 / ttft.value)


def test_the_same_server_twice_shows_no_detectable_difference() -> None:
    compared = compare_engines(
        [EngineResult("m", "a", {LOAD: (point(3),)}), EngineResult("m", "b", {LOAD: (point(4),)})]
    )
    ratios = compared.model("m").points[0].engines[1].ratios
    outcomes = [ratios[name].outcome for name in ("ttft_ms.p50", "itl_ms.p50", "e2e_ms.p50", "output_tokens_per_s")]
    assert outcomes.count(SAME) >= 3


def test_a_percentile_that_the_requests_cannot_bound_is_not_compared() -> None:
    compared = compare_engines([EngineResult("m", "a", {LOAD: (SLOW,)}), EngineResult("m", "b", {LOAD: (FAST,)})])
    ratio = compared.model("m").points[0].engines[1].ratios["e2e_ms.p99"]
    assert SLOW.counts["counted"] < 368
    assert ratio.outcome == UNKNOWN
    assert "it takes 368" in ratio.note


def test_an_invalid_point_is_not_compared() -> None:
    broken = point(5, fail=0.5)
    assert broken.verdict.state == "invalid"
    compared = compare_engines([EngineResult("m", "a", {LOAD: (SLOW,)}), EngineResult("m", "b", {LOAD: (broken,)})])
    ratio = compared.model("m").points[0].engines[1].ratios["ttft_ms.p50"]
    assert ratio.outcome == UNKNOWN
    assert ratio.note == "b is invalid here"


def test_several_tokens_at_once_leave_the_gaps_uncompared() -> None:
    requests, hint = closed_loop(8, duration_ms=10_000, per_chunk=4)
    several = summarise_point(requests, window_hint=hint, slo={}, attainment=0.95, outcome={}, seed=1, run_id="r")
    compared = compare_engines([EngineResult("m", "a", {LOAD: (SLOW,)}), EngineResult("m", "b", {LOAD: (several,)})])
    ratios = compared.model("m").points[0].engines[1].ratios
    assert ratios["itl_ms.p50"].outcome == UNKNOWN
    assert "TPOT" in ratios["itl_ms.p50"].note
    assert ratios["tpot_ms.p50"].outcome != UNKNOWN


def test_the_reference_is_the_first_engine_with_numbers() -> None:
    compared = compare_engines([EngineResult("m", "gone", {}), EngineResult("m", "b", {LOAD: (SLOW,)})])
    assert compared.model("m").reference == "b"
    assert compare_engines([EngineResult("m", "gone", {})]).model("m").reference == ""
    assert compare_engines([]).models == ()


def test_models_and_load_points_are_kept_apart() -> None:
    other = ("closed", 1.0)
    compared = compare_engines(
        [
            EngineResult("big", "a", {LOAD: (SLOW,), other: (SLOW,)}),
            EngineResult("small", "a", {LOAD: (FAST,)}),
            EngineResult("big", "b", {LOAD: (FAST,)}),
        ]
    )
    assert [model.model for model in compared.models] == ["big", "small"]
    big = compared.model("big")
    assert [found.load for found in big.points] == [other, LOAD]
    assert [[engine.label for engine in found.engines] for found in big.points] == [["a"], ["a", "b"]]
    assert big.points[0].engine("b") is None


def test_repeats_are_pooled_and_their_spread_widens_the_interval() -> None:
    repeats = (point(1, itl=9.0), point(2, itl=10.0), point(3, itl=11.0))
    found = compare_engines([EngineResult("m", "a", {LOAD: repeats})]).model("m").points[0].engines[0]
    number = found.numbers["ttft_ms.p50"]
    assert number.repeats == tuple(summary.value("ttft_ms.p50") for summary in repeats)
    assert number.value == pytest.approx(sum(number.repeats) / 3)
    assert number.interval is not None
    alone = repeats[1].findings["ttft_ms.p50"].interval
    assert alone is not None
    assert number.interval.high - number.interval.low > 1.5 * (alone.high - alone.low)
    assert found.counts["counted"] == sum(summary.counts["counted"] for summary in repeats)


def test_pool_by_hand() -> None:
    draws = [np.full(100_000, 99.0), np.full(100_000, 100.0), np.full(100_000, 101.0), np.empty(0)]
    value, pooled = pool([99.0, 100.0, 101.0, math.nan], draws, generator(0, "x"))
    assert value == 100
    band = interval(pooled)
    assert band is not None
    # the standard error is 1 / √3, and Student's t with two degrees of freedom 4.303
    assert (band.low, band.high) == pytest.approx((100 - 4.303 / 3**0.5, 100 + 4.303 / 3**0.5), abs=0.1)
    _, pooled = pool([1.0, 3.0], [np.ones(1000), np.full(1000, 3.0)], generator(0, "x"))
    assert 0 <= pooled.min() < 0.01, "no rate is below 0"
    _, pooled = pool([1.0, 3.0], [np.full(1000, math.inf), np.full(1000, 3.0)], generator(0, "x"))
    assert (pooled == math.inf).all(), "a replicate in which failures reach the percentile"
    value, pooled = pool([1.0, math.inf], [np.full(9, 1.0), np.full(9, math.inf)], generator(0, "x"))
    assert value == math.inf
    assert (pooled == math.inf).all()
    assert math.isnan(pool([math.nan], [np.empty(0)], generator(0, "x"))[0])
    assert len(pool([1.0, 2.0], [np.ones(5), np.empty(0)], generator(0, "x"))[1]) == 0


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_starts_that_differ_by_chance_raise_few_alarms(repeats: int) -> None:
    """Two engines that are the same; each start is 2 % off by itself, and exact."""
    rng, alarms = np.random.default_rng(repeats), 0
    for trial in range(200):
        sides = []
        for side in range(2):
            values = np.exp(rng.normal(0, 0.02, repeats)).tolist()
            sides.append(pool(values, [np.full(1000, value) for value in values], generator(trial, str(side)))[1])
        band = interval(ratio_draws(*sides))
        assert band is not None
        alarms += not band.low <= 1 <= band.high
    assert alarms <= 0.07 * 200


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ((1.0, 1.1), (2.0, 2.2), BETTER),
        ((2.0, 2.2), (1.0, 1.1), WORSE),
        ((1.0, 2.1), (2.0, 2.2), SAME),
        ((2.0, 2.1), (2.15, 2.3), SAME),  # of two starts each, equal engines have no overlap one time in three
        ((5.0, 5.0, 5.0), (5.0, 5.0, 5.0), SAME),
        ((4.0, 4.0, 4.0), (5.0, 5.0, 5.0), BETTER),
        ((1.0,), (2.0,), UNKNOWN),
        ((0.0, 1.0), (2.0, 2.1), UNKNOWN),
    ],
)
def test_start_up_is_told_apart_by_repeats_only(
    ours: tuple[float, ...], theirs: tuple[float, ...], outcome: str
) -> None:
    compared = compare_engines(
        [
            EngineResult("m", "a", {LOAD: (SLOW,)}, startup_s=theirs),
            EngineResult("m", "b", {LOAD: (SLOW,)}, startup_s=ours),
        ]
    )
    feet = compared.model("m").footprints
    assert feet[0].ratios == {}
    assert feet[1].ratios["startup_s"].outcome == outcome
    assert feet[1].ratios["startup_s"].value == pytest.approx(np.mean(ours) / np.mean(theirs))


@pytest.mark.parametrize("starts", [2, 3, 5])
def test_equal_engines_start_alike_19_times_in_20(starts: int) -> None:
    rng, alarms = np.random.default_rng(starts), 0
    for _ in range(400):
        a, b = (tuple(10 * np.exp(0.05 * rng.standard_normal(starts))) for _ in range(2))
        ours, theirs = (Pooled("startup_s", float(np.mean(x)), "s", "startup_s@1", repeats=x) for x in (a, b))
        alarms += _plain_ratio(ours, theirs).outcome != SAME
    assert alarms <= 0.08 * 400


def test_a_figure_that_one_side_lacks_has_no_ratio() -> None:
    results = [
        EngineResult("m", "a", {LOAD: (SLOW,)}, startup_s=(1.0,)),
        EngineResult("m", "b", {LOAD: (SLOW,)}, startup_s=(1.0,), gpu_memory_bytes=(5.0, math.nan)),
    ]
    foot = compare_engines(results).model("m").footprints[1]
    assert foot.numbers["gpu_memory_bytes"].repeats == (5.0,)
    assert set(foot.ratios) == {"startup_s"}


def test_the_worst_verdict_wins_and_reasons_are_said_once() -> None:
    bound = Verdict("client-bound", ("x", "z"), ("client-bound", "degraded"))
    found = worst([Verdict(), bound, Verdict("degraded", ("x", "y"))])
    assert found == Verdict("client-bound", ("x", "z", "y"), ("client-bound", "degraded", "degraded"))
    assert worst([]).state == "invalid"


def test_requests_cut_off_make_a_ratio_a_bound_or_nothing() -> None:
    def cut(summary: PointSummary) -> PointSummary:
        return replace(summary, counts=summary.counts | {"cancelled": summary.counts["measured"] // 2})

    def ttft(base: PointSummary, other: PointSummary) -> Ratio:
        compared = compare_engines([EngineResult("m", "a", {LOAD: (base,)}), EngineResult("m", "b", {LOAD: (other,)})])
        return compared.model("m").points[0].engines[1].ratios["ttft_ms.p50"]

    assert (ttft(SLOW, FAST).outcome, ttft(SLOW, FAST).bound) == (BETTER, "")
    assert (ttft(cut(SLOW), FAST).outcome, ttft(cut(SLOW), FAST).bound) == (BETTER, "≤")
    assert (ttft(FAST, cut(SLOW)).outcome, ttft(FAST, cut(SLOW)).bound) == (WORSE, "≥")
    assert ttft(SLOW, cut(FAST)).outcome == UNKNOWN, "the cut ones may have been slow"
    assert ttft(cut(FAST), SLOW).outcome == UNKNOWN
    assert ttft(cut(SLOW), cut(FAST)).outcome == UNKNOWN


def test_a_share_of_several_repeats_is_of_all_their_requests() -> None:
    """With repeats of unequal size the mean of their shares is of no population, and it has no interval."""
    requests, hint = closed_loop(8, duration_ms=1_000, fail=0.5, seed=5)
    options = {"slo": {}, "attainment": 0.95, "outcome": {}, "seed": 1, "run_id": "r"}
    small = summarise_point(requests, window_hint=hint, **options)  # type: ignore[arg-type]
    large = point(1, itl=5.0)
    found = compare_engines([EngineResult("m", "a", {LOAD: (small, large)})]).model("m").points[0].engines[0]
    failed = small.counts["failed"] + large.counts["failed"]
    n = small.counts["counted"] + large.counts["counted"]
    assert 0 < small.counts["counted"] < large.counts["counted"] / 4
    assert found.value("failed_share") == pytest.approx(failed / n)
    assert found.numbers["failed_share"].interval == wilson(failed, n)
    assert found.numbers["failed_share"].repeats == (small.value("failed_share"), 0.0)


def exact(value: float) -> PointSummary:
    """A start whose rate is known without any noise."""
    findings = {"requests_per_s": Finding("requests_per_s", value, "req/s", "requests_per_s@1")}
    window, draws = SteadyWindow(0, 1, True), {"requests_per_s": np.full(1000, value)}
    return PointSummary(findings, {"counted": 100}, {}, {}, {}, window, Verdict(), draws=draws)


def test_an_engine_that_was_started_once_is_as_unsure_as_the_one_beside_it() -> None:
    """Two engines that are the same; each start is 2 % off by itself. One was started five times, the other once."""
    rng, alarms = np.random.default_rng(1), 0
    for trial in range(200):
        often, once = (tuple(exact(v) for v in np.exp(rng.normal(0, 0.02, n))) for n in (5, 1))
        sides = [EngineResult("m", "often", {LOAD: often}), EngineResult("m", "once", {LOAD: once})]
        compared = compare_engines(sides if trial % 2 else sides[::-1], seed=trial).model("m").points[0]
        alarms += compared.engines[1].ratios["requests_per_s"].outcome != SAME
    assert alarms <= 0.07 * 200


def test_a_percentile_is_judged_by_the_values_that_it_is_of() -> None:
    """400 answers of one token and 20 of eight: 20 of them have a TPOT, which bounds no p99."""

    def side(seed: int) -> PointSummary:
        rng, rows = np.random.default_rng(seed), []
        for i in range(420):
            gap = 10 * rng.lognormal(0, 0.5)
            rows.append(Row(i * 50, chunks=[i * 50 + 20 + gap * k for k in range(1 if i % 21 else 8)]))
        requests, slo = requests_of(*rows), {"ttft_ms": 60.0}
        hint = (S, int(requests.finished_ns.max()))
        return summarise_point(
            requests, window_hint=hint, slo=slo, attainment=0.95, outcome={}, seed=seed, run_id="r", exact_output=False
        )

    compared = compare_engines([EngineResult("m", name, {LOAD: (side(i),)}) for i, name in enumerate("ab")])
    ratios = compared.model("m").points[0].engines[1].ratios
    assert ratios["tpot_ms.p99"].outcome == UNKNOWN
    assert "20 requests cannot tell two p99 apart" in ratios["tpot_ms.p99"].note
    assert ratios["ttft_ms.p99"].outcome == SAME
