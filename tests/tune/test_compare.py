from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redline.errors import EngineDied, EngineStartFailed, EnvironmentFault, Unsupported, UsageError
from redline.load.progress import PointOutcome
from redline.load.run import run_point
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.workload import LengthSpec, WorkloadSpec
from redline.store.read import Reader
from redline.tune.compare import compare
from tests.tune.paced_engine import InterruptAfter, PacedEngine

pytestmark = pytest.mark.usefixtures("paced")


def experiment(*engines: dict[str, Any], repeats: int = 1, **load: Any) -> Experiment:
    load = {"concurrency": [1, 4], "requests": 8, "duration_s": 20, "warmup_requests": 1, "calibrate_s": 0, **load}
    return Experiment(
        models=[ModelSpec(id="paced")],
        engines=[EngineSpec(kind="paced", name=f"e{i}", flags=flags) for i, flags in enumerate(engines)],
        workload=WorkloadSpec(prompt_tokens=LengthSpec(mean=16), output_tokens=LengthSpec(mean=8), canary_share=0),
        load=LoadSpec(**load),
        repeats=repeats,
    )


def test_every_engine_meets_every_point_and_all_is_kept(tmp_path: Path) -> None:
    outcome = compare(experiment({}, {"itl-ms": 6.0}, repeats=2), db=tmp_path / "r.db", argv=["redline", "compare"])
    assert (outcome.status, outcome.errors) == ("done", [])
    with Reader.open(tmp_path / "r.db") as reader:
        run = reader.run(outcome.run_id)
        assert [(t.engine, t.repeat, t.status) for t in run.trials] == [
            ("e0", 0, "done"), ("e1", 0, "done"), ("e1", 1, "done"), ("e0", 1, "done"),
        ]  # fmt: skip
        for trial in run.trials:
            assert [point.value for point in trial.points] == [1, 4]
            for point in trial.points:
                requests = reader.requests(point.id)
                assert (~requests.warmup).sum() == 8
                assert set(requests.status) == {"ok"}
                assert set(requests.output_tokens[~requests.warmup]) == {8}
        assert run.status == "done"
        assert (tmp_path / "r.db").exists()


def test_an_engine_that_dies_at_start_does_not_end_the_run(tmp_path: Path) -> None:
    outcome = compare(experiment({"fail-start": True}, {}), db=tmp_path / "r.db")
    assert outcome.status == "done"
    assert [type(error) for error in outcome.errors] == [EngineStartFailed]
    with Reader.open(tmp_path / "r.db") as reader:
        run = reader.run(outcome.run_id)
    assert [(t.status, len(t.points)) for t in run.trials] == [("failed", 0), ("done", 2)]
    assert run.trials[0].diagnosis == "out-of-memory"
    assert run.verdict != "valid"


def test_an_engine_that_dies_under_load_is_started_again_for_what_is_left(tmp_path: Path) -> None:
    plan = experiment({"die-after": 4}, concurrency=[1, 2], requests=6)
    outcome = compare(plan, db=tmp_path / "r.db")
    assert [type(error) for error in outcome.errors] == [EngineDied]
    with Reader.open(tmp_path / "r.db") as reader:
        run = reader.run(outcome.run_id)
        first, second = run.trials
        assert (first.status, second.status) == ("failed", "done")
        died = first.points[-1]
        assert died.stopped_by == "engine-died"
        assert died.verdict == "invalid"
        assert "ok" in set(reader.requests(first.points[0].id).status), "what was measured before is kept"
        assert [point.value for point in second.points] == [p for p in (1, 2) if p > died.value]


@pytest.mark.parametrize("dies", [True, False])
def test_a_server_that_does_not_answer_is_a_death_when_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """It may die just when it is asked how long a prompt is; a server that lives and does not answer is the box's."""

    def unanswered(*args: Any, **named: Any) -> PointOutcome:
        monkeypatch.setattr("redline.tune.trial.run_point", run_point)
        process = PacedEngine.started[0].server.process
        if dies and process:
            process.kill()
        raise EnvironmentFault("/tokenize did not answer")

    monkeypatch.setattr("redline.tune.trial.run_point", unanswered)
    plan = experiment({}, concurrency=[1])
    if not dies:
        with pytest.raises(EnvironmentFault, match="did not answer"):
            compare(plan, db=tmp_path / "r.db")
        return
    outcome = compare(plan, db=tmp_path / "r.db")
    assert [type(error) for error in outcome.errors] == [EngineDied]
    with Reader.open(tmp_path / "r.db") as reader:
        first, second = reader.run(outcome.run_id).trials
    assert (first.status, first.diagnosis, second.status) == ("failed", "killed", "done")
    assert [point.complete for point in second.points] == [True]


def test_nothing_can_run_here(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no such hardware"):
        compare(experiment({"missing": True}), db=tmp_path / "r.db")
    assert not (tmp_path / "r.db").exists()


def test_a_skipped_engine_is_said_and_the_other_measured(tmp_path: Path) -> None:
    outcome = compare(experiment({"missing": True}, {}), db=tmp_path / "r.db")
    with Reader.open(tmp_path / "r.db") as reader:
        run = reader.run(outcome.run_id)
    assert [t.status for t in run.trials] == ["skipped", "done"]
    assert "buy it" in run.trials[0].error


def test_wrong_flags_are_found_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-such-flag"):
        compare(experiment({}, {"no-such-flag": 1}), db=tmp_path / "r.db")
    assert PacedEngine.started == []


def test_ctrl_c_under_load_keeps_what_was_measured(tmp_path: Path) -> None:
    plan = experiment({"itl-ms": 20.0}, {}, concurrency=[2], requests=0, duration_s=40)
    outcome = compare(plan, db=tmp_path / "r.db", events=InterruptAfter(0))
    assert outcome.status == "interrupted"
    with Reader.open(tmp_path / "r.db") as reader:
        run = reader.run(outcome.run_id)
        assert run.status == "interrupted"
        assert [t.status for t in run.trials] == ["interrupted"]
        assert run.trials[0].points[0].stopped_by == "interrupted"
        assert "ok" in set(reader.requests(run.trials[0].points[0].id).status)


def test_ctrl_c_during_a_start_does_not_forget_what_failed_before(tmp_path: Path) -> None:
    outcome = compare(experiment({"fail-start": True}, {"interrupt-start": True}), db=tmp_path / "r.db")
    assert outcome.status == "interrupted"
    assert [type(error) for error in outcome.errors] == [EngineStartFailed]
    with Reader.open(tmp_path / "r.db") as reader:
        run = reader.run(outcome.run_id)
    assert [t.status for t in run.trials] == ["failed", "interrupted"]
    assert "it died" in run.reasons
