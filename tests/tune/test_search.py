"""Searches on the paced server, whose capacity is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from redline.errors import SpecError
from redline.report.assemble import load_report
from redline.spec.experiment import Experiment
from redline.spec.overrides import experiment_from
from redline.store.read import Reader
from redline.tune.compare import compare

pytestmark = pytest.mark.usefixtures("paced", "client_not_judged")


def experiment(**values: Any) -> Experiment:
    flags = [f"paced.{name}={value}" for name, value in values.pop("flags", {}).items()]
    return experiment_from(
        None,
        {
            "model": ["paced"], "engines": "paced", "engine_flag": flags, "prompt_tokens": 16, "output_tokens": 16,
            "duration": 1.0, "drain": 0.5, "warmup_requests": 1, "calibrate": 0, **values,
        },
    )  # fmt: skip


def test_the_knee_of_a_server_with_six_slots(tmp_path: Path) -> None:
    plan = experiment(flags={"slots": 6, "itl-ms": 4, "ttft-ms": 30}, search="knee", search_precision=0.2)
    outcome = compare(plan, db=tmp_path / "r.db")
    assert outcome.status == "done"
    with Reader.open(tmp_path / "r.db") as reader:
        [trial] = reader.run(outcome.run_id).trials
        loads = [point.value for point in trial.points]
        assert list(dict.fromkeys(loads))[:4] == [1, 2, 4, 8], [(p.value, p.verdict, p.reasons) for p in trial.points]
        assert trial.points[-1].outcome["search"]["stop"]
        report = load_report(reader, [outcome.run_id])
    [section] = [section for section in report.sections if section.key == "search"]
    assert section.brief
    [answer] = [note for note in section.notes if "knee" in note and "clients" in note]
    found = float(answer.split(" clients")[0].split()[-1])
    assert 4.5 <= found <= 7.5, answer


def test_the_most_load_under_an_slo(tmp_path: Path) -> None:
    """With four slots a fifth client waits: one answer in five for a whole other one (420 ms), or each for a quarter of
    it, as the box has it. The SLO lies below both, and as far above four clients' 60 ms as a busy box may be late."""
    plan = experiment(
        flags={"slots": 4, "itl-ms": 24, "ttft-ms": 60}, search="slo", slo_ttft=150, slo_attainment=0.9, search_low=2,
        duration=1.5, drain=2,
    )  # fmt: skip
    outcome = compare(plan, db=tmp_path / "r.db")
    with Reader.open(tmp_path / "r.db") as reader:
        report = load_report(reader, [outcome.run_id])
    [section] = [section for section in report.sections if section.key == "search"]
    assert any("4 clients" in note and "keep" in note for note in section.notes), section.notes


def test_the_time_budget_is_kept(tmp_path: Path) -> None:
    plan = experiment(flags={"slots": 6, "ttft-ms": 40, "itl-ms": 4}, search="knee", search_budget=4.0)
    outcome = compare(plan, db=tmp_path / "r.db")
    with Reader.open(tmp_path / "r.db") as reader:
        [trial] = reader.run(outcome.run_id).trials
    took = [point.outcome["search"]["seconds"] for point in trial.points]
    before = took[:-1]  # a slow box may take its time for the last one, which was begun because it would fit
    assert sum(before) + max(before, default=0.0) <= 4.0
    assert "budget" in trial.points[-1].outcome["search"]["stop"]


def test_a_search_under_an_slo_needs_one() -> None:
    with pytest.raises(SpecError, match="needs an SLO"):
        experiment(search="slo")


def test_clients_are_whole() -> None:
    with pytest.raises(SpecError, match="whole"):
        experiment(search="knee", search_low=1.5)
    assert math.isclose(experiment(search="knee", search_over="rate", search_low=1.5).search.low, 1.5)
