"""What the statistics promise, put to the test on simulated pairs of runs with a fixed seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from redline.analyse.blocks import Spread, percentile_spreads, units_of_values
from redline.analyse.comparison import BETTER, UNKNOWN, WORSE
from redline.analyse.effect import UNCHANGED, Effect, effect, holm, judge_family
from redline.analyse.percentile import Floats
from redline.analyse.rounds import Round

METRICS = ("ttft_ms.p50", "ttft_ms.p99")
PAIRS = 400


@dataclass(frozen=True)
class World:
    """How simulated rounds come about. `rounds` of `requests` on each side; latencies follow an AR(1) process with
    correlation `rho` between neighbours; each round has an effect of its own of size `between`, shared by both sides
    when `paired`; B is `slower` times A."""

    rounds: int = 5
    requests: int = 400
    rho: float = 0.6
    sd: float = 0.04
    between: float = 0.02
    paired: bool = True
    slower: float = 1.0


def latencies(rng: np.random.Generator, world: World, factor: float) -> Floats:
    noise = rng.normal(0, world.sd * math.sqrt(1 - world.rho**2), world.requests).tolist()
    at, series = rng.normal(0, world.sd), []
    for step in noise:
        at = world.rho * at + step
        series.append(at)
    return factor * 100 * np.exp(np.array(series) + rng.normal(0, world.sd / 2, world.requests))


def one_round(rng: np.random.Generator, world: World, factor: float) -> Round:
    units = units_of_values(latencies(rng, world, factor))
    found = percentile_spreads(units, [0.5, 0.99], 8, world.requests)
    return Round(dict(zip(METRICS, found, strict=True)), {}, {"counted": world.requests, "measured": world.requests})


def one_pair(rng: np.random.Generator, world: World) -> list[Effect]:
    ours, theirs = [], []
    for _ in range(world.rounds):
        shared = rng.normal(0, world.between)
        other = shared if world.paired else rng.normal(0, world.between)
        ours.append(one_round(rng, world, math.exp(shared)))
        theirs.append(one_round(rng, world, world.slower * math.exp(other)))
    return judge_family([effect(metric, ours, theirs, paired=world.paired) for metric in METRICS])


def shares(world: World, pairs: int = PAIRS, seed: int = 7) -> dict[str, float]:
    """Share of pairs with any difference claimed, with p50 called worse, and whose p50 interval holds the truth."""
    rng = np.random.default_rng(seed)
    found = [one_pair(rng, world) for _ in range(pairs)]
    return {
        "claimed": sum(any(one.outcome in (BETTER, WORSE) for one in pair) for pair in found) / pairs,
        "worse": sum(pair[0].outcome == WORSE for pair in found) / pairs,
        "covered": sum(
            pair[0].interval is not None and pair[0].interval.low <= world.slower <= pair[0].interval.high
            for pair in found
        )
        / pairs,
    }


def most(share: float, n: int = PAIRS) -> float:
    """What a true share of at most `share` stays below in n trials, 99.9 times in a hundred (normal approximation)."""
    return share + 3.1 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize(
    "world",
    [
        World(rounds=1, between=0.0, rho=0.0),
        World(rounds=1, between=0.0, rho=0.8, requests=1000),
        World(rounds=3),
        World(rounds=3, paired=False),
        World(rounds=5),
        World(rounds=5, paired=False),
        World(rounds=5, rho=0.95),
    ],
    ids=lambda world: f"{world.rounds} rounds, rho {world.rho}, {'paired' if world.paired else 'not paired'}",
)
def test_a_a_raises_a_false_alarm_at_most_five_times_in_a_hundred(world: World) -> None:
    found = shares(world)
    assert found["claimed"] <= most(0.05)
    assert found["covered"] >= 1 - most(0.05)


def test_a_three_percent_slowdown_is_found() -> None:
    # five rounds of 400 requests, latencies that vary by 4 %, rounds that differ by 2 %
    found = shares(World(slower=1.03))
    assert found["worse"] >= 0.9
    assert found["covered"] >= 1 - most(0.05)


def test_pairing_pays_when_the_box_drifts() -> None:
    drifting = World(between=0.05, slower=1.03)
    apart = World(between=0.05, slower=1.03, paired=False)
    assert shares(drifting, 100)["worse"] > 0.9 > 0.5 > shares(apart, 100)["worse"]


def test_requests_taken_as_independent_would_raise_false_alarms() -> None:
    """The reason for blocks: what the same data would say without them."""
    world, rng = World(rounds=1, between=0.0, rho=0.9, requests=2000), np.random.default_rng(3)
    naive = []
    for _ in range(200):
        two = [np.log(latencies(rng, world, 1.0)) for _ in range(2)]
        error = math.sqrt(sum(values.var(ddof=1) / len(values) for values in two))
        naive.append(abs(two[0].mean() - two[1].mean()) > 1.96 * error)
    assert np.mean(naive) > 0.3
    assert shares(world, 200)["claimed"] <= most(0.05, 200)


def test_the_detectable_change_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(5)
    usual = float(np.median([one_pair(rng, World(rounds=8))[0].detectable for _ in range(40)]))
    rng = np.random.default_rng(6)
    found = [one_pair(rng, World(rounds=8, slower=1 + usual))[0] for _ in range(200)]
    # by its own interval, before the correction for several metrics
    assert 0.7 <= np.mean([one.p < 0.05 for one in found]) <= 0.9


def made(*values: float, se: float = 0.004, blocks: float = 40, counted: int = 1000, failed: int = 0) -> list[Round]:
    return [
        Round(
            {"ttft_ms.p50": Spread(value, se, blocks), "output_tokens_per_s": Spread(1000 / value, se, blocks)},
            {"failed_share": (failed, counted)},
            {"counted": counted, "measured": counted},
        )
        for value in values
    ]


def judged(metric: str, a: list[Round], b: list[Round], tolerance: float = 0.0, *, paired: bool = False) -> Effect:
    return judge_family([effect(metric, a, b, paired=paired, tolerance=tolerance)], tolerance)[0]


def test_direction_follows_the_metric() -> None:
    assert judged("ttft_ms.p50", made(10), made(11)).outcome == WORSE
    assert judged("ttft_ms.p50", made(11), made(10)).outcome == BETTER
    assert judged("output_tokens_per_s", made(10), made(11)).outcome == WORSE


def test_a_and_b_exchanged_say_the_same() -> None:
    there, back = (judged("ttft_ms.p50", made(*x), made(*y)) for x, y in (((10, 11), (12, 13)), ((12, 13), (10, 11))))
    assert there.interval is not None
    assert back.interval is not None
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.interval.low * back.interval.high == pytest.approx(1)
    assert there.p == pytest.approx(back.p)


@pytest.mark.parametrize(("tolerance", "regression"), [(0.0, True), (0.05, True), (0.095, False), (0.2, False)])
def test_a_regression_is_surely_beyond_the_tolerance(tolerance: float, regression: bool) -> None:
    found = judged("ttft_ms.p50", made(10), made(11), tolerance)
    assert found.outcome == WORSE
    assert found.regression is regression


def test_better_is_never_a_regression() -> None:
    assert not judged("ttft_ms.p50", made(11), made(10)).regression


def test_two_paired_rounds_are_too_few_to_pair() -> None:
    assert "not paired" in judged("ttft_ms.p50", made(10, 11), made(10, 11), paired=True).method


def test_identical_rounds_without_any_spread_are_unchanged() -> None:
    found = judged("ttft_ms.p50", made(10, 10, 10, 10, se=0.0), made(10, 10, 10, 10, se=0.0), paired=True)
    assert found.outcome == UNCHANGED
    assert found.ratio == 1


def test_one_round_each_says_what_is_missing() -> None:
    assert "one round each" in judged("ttft_ms.p50", made(10), made(10)).note


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (made(math.inf), made(10), "failed requests make it infinite"),
        (made(math.nan), made(10), "not measured on both"),
        (made(10, counted=4), made(10, counted=4), "4 requests cannot tell two p50 apart"),
        (made(10, se=math.nan), made(10), "too few requests"),
    ],
)
def test_what_cannot_be_said_says_why(a: list[Round], b: list[Round], why: str) -> None:
    found = judged("ttft_ms.p50", a, b)
    assert found.outcome == UNKNOWN
    assert why in found.note


def test_failures_are_compared_as_shares() -> None:
    more = judged("failed_share", made(10), made(10, failed=40))
    assert more.outcome == WORSE
    assert more.difference == pytest.approx(0.04)
    assert judged("failed_share", made(10), made(10, failed=1)).outcome == UNCHANGED
    assert judged("failed_share", made(10), made(10)).outcome == UNCHANGED


def test_holm_against_a_worked_example() -> None:
    # Holm (1979) by hand: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
