from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from redline.analyse.blocks import Spread
from redline.analyse.proof import Proof, Sides, judged, shifts, weigh
from redline.analyse.rounds import Round

METRICS = ("output_tokens_per_s", "ttft_ms.p50", "itl_ms.p50")
BLANK = Proof("vm.x", "1", "2", "", "changed while the engine runs", "not measured")


def measured(rng: np.random.Generator, rounds: int, factor: float = 1.0, drift: float = 0.002) -> Sides:
    """Both values in turns on a box that drifts; the wanted one multiplies latencies by `factor`."""
    sides: tuple[list[Round], list[Round]] = ([], [])
    for number in range(rounds):
        box = 1 + drift * number + rng.normal(0, 0.02)
        for side, times in zip(sides, (1.0, factor), strict=True):
            noise = np.exp(rng.normal(0, 0.01, 3)) * box
            values = (500 / (times * noise[0]), 40 * times * noise[1], 12 * times * noise[2])
            numbers = {name: Spread(float(v), 0.01, 40) for name, v in zip(METRICS, values, strict=True)}
            side.append(Round(numbers, {}, {"counted": 100, "measured": 100}))
    return Sides({"8 clients": sides})


def proof(sides: Sides) -> Proof:
    effects, moved, rounds = weigh(sides, METRICS)
    return replace(BLANK, effects=effects, shifts=moved, rounds=rounds)


def test_settings_without_effect_raise_a_false_alarm_in_at_most_one_table_of_twenty() -> None:
    """Three settings at a time, three metrics each, nothing but noise and drift: any verdict is a false alarm."""
    rng = np.random.default_rng(7)
    tables = [judged([proof(measured(rng, 8)) for _ in range(3)]) for _ in range(60)]
    alarms = sum(any(one.verdict != "no measurable effect" for one in table) for table in tables)
    assert alarms <= 7  # 60 draws at 5 %: 99 % of the time


@pytest.mark.parametrize(("factor", "verdict"), [(0.93, "helps"), (1.07, "hurts"), (1.0, "no measurable effect")])
def test_a_planted_effect_of_seven_percent_is_found(factor: float, verdict: str) -> None:
    rng = np.random.default_rng(3)
    found: list[str] = [judged([proof(measured(rng, 8, factor))])[0].verdict for _ in range(30)]
    assert found.count(verdict) >= 27


def test_an_effect_has_the_right_sign_size_and_interval() -> None:
    found = judged([proof(measured(np.random.default_rng(1), 8, 0.8))])[0]
    latency = next(one.effect for one in found.effects if one.effect.metric == "ttft_ms.p50")
    assert latency.interval is not None
    assert latency.interval.low < 0.8 < latency.interval.high
    assert found.rounds == 8
    assert all(one.effect.method == "paired by 8 rounds" for one in found.effects)


def test_what_helps_one_metric_and_hurts_another_is_said_so() -> None:
    sides = measured(np.random.default_rng(1), 8, 0.8)
    slower = measured(np.random.default_rng(2), 8, 1.3)
    both = [
        [replace(a, numbers={**a.numbers, "itl_ms.p50": b.numbers["itl_ms.p50"]}) for a, b in zip(x, y, strict=True)]
        for x, y in zip(sides.rounds["8 clients"], slower.rounds["8 clients"], strict=True)
    ]
    found = judged([proof(Sides({"8 clients": (both[0], both[1])}))])[0]
    assert found.verdict == "helps and hurts"
    assert not found.useful


def test_no_rounds_are_no_verdict_and_untested_ones_keep_theirs() -> None:
    untested = replace(BLANK, verdict="not testable here", why="no swap device")
    found = judged([proof(Sides()), untested])
    assert [one.verdict for one in found] == ["not measured", "not testable here"]


def test_a_signal_that_moved_is_told_from_one_that_did_not() -> None:
    rng = np.random.default_rng(5)
    present = [{"run_queue_ms": 10 + rng.normal(0, 1), "psi": 20 + rng.normal(0, 3)} for _ in range(8)]
    wanted = [{"run_queue_ms": 4 + rng.normal(0, 1), "psi": 20 + rng.normal(0, 3)} for _ in range(8)]
    found = {one.name: one for one in shifts(present, wanted)}
    assert found["run_queue_ms"].moved
    assert found["run_queue_ms"].low < -6 < found["run_queue_ms"].high
    assert not found["psi"].moved


def test_signals_without_a_partner_or_with_too_few_rounds_claim_nothing() -> None:
    assert shifts([], []) == ()
    assert [one.name for one in shifts([{"a": 1.0, "b": 1.0}] * 2, [{"a": 9.0}] * 3)] == ["a"]
    assert not shifts([{"a": 1.0}] * 2, [{"a": 9.0}] * 2)[0].moved


def test_a_proof_is_plain_data() -> None:
    found = judged([proof(measured(np.random.default_rng(1), 4, 0.8))])[0].to_json()
    assert json.loads(json.dumps(found))["verdict"] == "helps"
    assert found["useful"]
    assert found["effects"][0]["verdict"] == "helps"
