from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redline.analyse.blocks import Spread
from redline.analyse.comparison import WORSE
from redline.analyse.effect import UNCHANGED, Effect, effect, judge_family
from redline.analyse.rounds import Round
from redline.errors import EngineDied, UsageError
from redline.report.assemble import load_report
from redline.report.sides import same_rounds, stored_sides
from redline.report.versus import compare_runs
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.workload import LengthSpec, WorkloadSpec
from redline.store.read import Reader
from redline.tune.compare import compare
from redline.tune.resume import resume
from redline.tune.rounds import in_turn
from tests.tune.paced_engine import InterruptAfter, PacedEngine

pytestmark = [pytest.mark.usefixtures("paced"), pytest.mark.timeout(300)]


def experiment(*engines: dict[str, Any], rounds: int, keep_up: bool = True, **load: Any) -> Experiment:
    load = {"concurrency": [1, 2], "requests": 6, "duration_s": 20, "warmup_requests": 1, "calibrate_s": 0, **load}
    return Experiment(
        models=[ModelSpec(id="paced")],
        engines=[
            EngineSpec(kind="paced", name=f"e{i}", flags=flags, keep_up=keep_up) for i, flags in enumerate(engines)
        ],
        workload=WorkloadSpec(prompt_tokens=LengthSpec(mean=16), output_tokens=LengthSpec(mean=8), canary_share=0),
        load=LoadSpec(**load),
        rounds=rounds,
    )


def order_of(path: Path, run_id: str) -> list[str]:
    """Engines in the order in which their load points were measured."""
    with Reader.open(path) as reader:
        points = [(point.started_ns, trial.engine) for trial in reader.run(run_id).trials for point in trial.points]
    return [engine for _, engine in sorted(points)]


def test_engines_that_stay_up_take_turns(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    outcome = compare(experiment({}, {}, rounds=4, concurrency=[2]), db=db)
    assert (outcome.status, outcome.errors, len(PacedEngine.started)) == ("done", [], 2)
    assert order_of(db, outcome.run_id) == ["e0", "e1", "e1", "e0", "e1", "e0", "e0", "e1"]
    with Reader.open(db) as reader:
        assert [(t.engine, t.repeat, len(t.points)) for t in reader.run(outcome.run_id).trials] == [
            ("e0", 0, 4), ("e1", 0, 4),
        ]  # fmt: skip
        report = load_report(reader, [outcome.run_id])
    pooled = report.models[0].comparison.points[0].engines[0].numbers["ttft_ms.p50"]
    assert len(pooled.repeats) == 4
    assert report.missing == ()


def test_engines_that_cannot_stay_up_are_started_again_in_alternating_order(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    outcome = compare(experiment({}, {}, rounds=2, keep_up=False, concurrency=[2]), db=db)
    assert len(PacedEngine.started) == 4
    assert order_of(db, outcome.run_id) == ["e0", "e1", "e1", "e0"]
    with Reader.open(db) as reader:
        assert load_report(reader, [outcome.run_id]).missing == ()


def test_one_that_dies_drops_out_and_the_other_goes_on(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    plan = experiment({"die-after": 15}, {}, rounds=3, requests=30, concurrency=[1])
    outcome = compare(plan, db=db)
    assert [type(error) for error in outcome.errors] == [EngineDied]
    with Reader.open(db) as reader:
        trials = {trial.engine: trial for trial in reader.run(outcome.run_id).trials}
    assert trials["e0"].status == "failed"
    assert "died under load" in trials["e0"].error
    assert (trials["e1"].status, len(trials["e1"].points)) == ("done", 3)


def test_one_that_does_not_start_is_left_out(tmp_path: Path) -> None:
    outcome = compare(experiment({"fail-start": True}, {}, rounds=2), db=tmp_path / "r.db")
    assert (outcome.status, len(outcome.errors)) == ("done", 1)


@pytest.mark.usefixtures("client_not_judged")
def test_a_slower_server_is_found_by_rounds_and_an_equal_one_is_not(tmp_path: Path) -> None:
    """With real servers on a box that may be busy, so the planted change is large; `test_effect` has the fine ones."""
    db = tmp_path / "r.db"
    flags = {"itl-ms": 10.0, "ttft-ms": 10.0}
    plan = experiment(flags, flags, {**flags, "itl-ms": 30.0}, rounds=4, requests=10, concurrency=[2])
    run_id = compare(plan, db=db).run_id
    same, slow = (compare_runs(f"{run_id}:e0", f"{run_id}:{b}", db=db, metrics=["e2e_ms.p50"]) for b in ("e1", "e2"))
    (found,), (equal,) = ([one for *_, one in versus.effects()] for versus in (slow, same))
    assert found.method == "paired by 4 rounds"
    assert found.regression
    assert found.ratio > 1.5
    assert abs(np.log(equal.ratio)) < np.log(found.ratio) / 2


@pytest.mark.parametrize(("power", "rounds"), [(1, 4), (2, 8)], ids=["steady", "curved"])
def test_the_order_cancels_drift(power: int, rounds: int) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for number in range(rounds):
        for name in in_turn(["a", "b"], number):
            seen[name].append((len(seen["a"]) + len(seen["b"])) ** power)
    assert sum(seen["a"]) == sum(seen["b"])


def drifting(rng: np.random.Generator, rounds: int, *, interleaved: bool) -> Effect:
    """A against A on a box that gets 0.5 % slower with every load point."""
    names = [name for number in range(rounds) for name in (in_turn("ab", number) if interleaved else "")]
    names = names or ["a"] * rounds + ["b"] * rounds
    seen: dict[str, list[Round]] = {"a": [], "b": []}
    for at, name in enumerate(names):
        value = 10 * 1.005**at * float(np.exp(rng.normal(0, 0.003)))
        seen[name].append(Round({"itl_ms.p50": Spread(value, 0.003, 40)}, {}, {"counted": 500, "measured": 500}))
    return judge_family([effect("itl_ms.p50", seen["a"], seen["b"], paired=interleaved)])[0]


def test_drift_fools_one_after_the_other_and_not_the_rounds() -> None:
    rng = np.random.default_rng(1)
    sequential = [drifting(rng, 6, interleaved=False).outcome for _ in range(200)]
    in_rounds = [drifting(rng, 6, interleaved=True).outcome for _ in range(200)]
    assert sequential.count(WORSE) / 200 > 0.9
    assert in_rounds.count(UNCHANGED) / 200 >= 0.92


def test_rounds_that_were_cut_short_go_on_with_the_round_that_was_not_whole(tmp_path: Path) -> None:
    """AB BA AB, cut in the fourth point: B's second turn has lost its partner and is measured again with it."""
    db = tmp_path / "r.db"
    slow = {"ttft-ms": 50.0, "itl-ms": 20.0}
    first = compare(experiment(slow, slow, rounds=3, concurrency=[2], requests=10), db=db, events=InterruptAfter(3))
    assert first.status == "interrupted"
    with Reader.open(db) as reader:
        before = [point for trial in reader.run(first.run_id).trials for point in trial.points]
        cut = [next(iter(sides.points().values())) for sides in stored_sides(reader, first.run_id)]
    assert sorted([row.outcome["round"] for row in side] for side in cut) == [[0], [0, 1]]
    assert [[row.outcome["round"] for row in side] for side in same_rounds(*cut)] == [[0], [0]]
    kept = {point.id for point in before if point.outcome.get("round") == 0}
    assert (len(before), len(kept)) == (4, 2)
    second = resume(first.run_id, db=db)
    assert (second.run_id, second.status, second.errors) == (first.run_id, "done", [])
    with Reader.open(db) as reader:
        sides = {name: stored_sides(reader, f"{first.run_id}:{name}")[0].points() for name in ("e0", "e1")}
        report = load_report(reader, [first.run_id])
    for name, points in sides.items():
        [rows] = points.values()
        assert [row.outcome["round"] for row in rows] == [0, 1, 2], name
        assert rows[0].id in kept
        assert rows[1].id > max(point.id for point in before), "its partner was measured in another part of the run"
    engines = report.models[0].comparison.points[0].engines
    assert [len(one.numbers["ttft_ms.p50"].repeats) for one in engines] == [3, 3]
    for *_, one in compare_runs(f"{first.run_id}:e0", f"{first.run_id}:e1", db=db, metrics=["itl_ms.p50"]).effects():
        assert (one.rounds, one.method) == ((3, 3), "paired by 3 rounds")
    with pytest.raises(UsageError, match="nothing is left"):
        resume(first.run_id, db=db)
