"""With an engine: the paced server, whose times follow a setting of a box in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redline.errors import UsageError
from redline.report.assemble import load_report
from redline.store.read import Reader
from redline.tune.prove.prove import Options, Proven, prove
from tests.tune.paced_engine import PacedEngine
from tests.tune.prove.boxes import PLANTED, box, experiment, planted, prove_http, value

pytestmark = pytest.mark.usefixtures("paced")
START = "vm.max_map_count"
"""A row that acts at the engine's start."""


@pytest.fixture(autouse=True)
def _every_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy box makes rounds client-bound; the effects planted here are far larger than that."""
    monkeypatch.setattr("redline.tune.prove.arms._BARRED", ())


def run(tmp_path: Path, flags: dict[str, Any], *settings: str, **more: Any) -> Proven:
    options = Options(**{"rounds": 3, "settle_s": 0.0, "metrics": ("e2e_ms.p50",), **more})
    return prove(
        experiment(flags), settings, options,
        sys=box(tmp_path / "box"), state_dir=tmp_path / "state", db=tmp_path / "r.db",
    )  # fmt: skip


def test_one_engine_serves_both_values_and_each_has_prompts_of_its_own(tmp_path: Path) -> None:
    done = run(tmp_path, {"speed-file": planted(tmp_path / "box"), "prefix-cache": True}, f"{PLANTED}=1")
    assert (done.status, done.errors, done.left) == ("done", [], [])
    assert done.proofs[0].verdict == "helps"
    assert done.proofs[0].effects[0].effect.ratio < 0.5
    assert len(PacedEngine.started) == 1
    assert value(tmp_path / "box", PLANTED) == "8\n"
    with Reader.open(tmp_path / "r.db") as reader:
        trials = reader.run(done.run_id).trials
        assert [len(trial.points) for trial in trials] == [3, 3]
        # the paced server remembers prompts: a value that got those of the other one would find them cached
        assert sum(reader.requests(point.id).cached_tokens.sum() for trial in trials for point in trial.points) == 0


def test_canaries_are_asked_alone_once_of_a_server_that_stays(tmp_path: Path) -> None:
    done = run(tmp_path, {"speed-file": planted(tmp_path / "box")}, "control", f"{PLANTED}=1")
    with Reader.open(tmp_path / "r.db") as reader:
        points = [reader.requests(point.id) for trial in reader.run(done.run_id).trials for point in trial.points]
    alone = [int((one.warmup & (one.canary >= 0)).sum()) for one in points]
    loaded = [int((~one.warmup & (one.canary >= 0)).sum()) for one in points]
    assert len(points) == 12
    assert sorted(alone)[:-1] == [0] * 11
    assert max(alone) > 0
    assert min(loaded) > 0


def test_what_acts_at_the_start_starts_the_engine_for_every_round(tmp_path: Path) -> None:
    done = run(tmp_path, {"start-file": planted(tmp_path / "box", START)}, f"{START}=1")
    assert done.proofs[0].verdict == "helps"
    assert done.proofs[0].how == "engine started for every round"
    assert len(PacedEngine.started) == 6
    assert value(tmp_path / "box", START) == "3\n"


def test_load_time_is_that_of_the_start(tmp_path: Path) -> None:
    flags = {"start-file": planted(tmp_path / "box", START)}
    done = run(tmp_path, flags, f"{START}=1", measure="load", metrics=())
    assert done.proofs[0].verdict == "helps"
    assert done.proofs[0].effects[0].effect.ratio == pytest.approx(1 / 3)
    with Reader.open(tmp_path / "r.db") as reader:
        assert load_report(reader, [done.run_id]).missing == ()


def test_short_connections_to_an_engine_that_is_started_for_every_round(tmp_path: Path) -> None:
    done = run(tmp_path, {}, f"{START}=1", measure="http", metrics=("failed_share",), http=_target())
    assert done.proofs[0].rounds == 3
    assert len(PacedEngine.started) == 6


def test_short_connections_to_an_engine_that_is_up_for_all_settings(tmp_path: Path) -> None:
    speed = {"speed-file": planted(tmp_path / "box")}
    done = run(tmp_path, speed, "control", f"{PLANTED}=1", measure="http", metrics=("failed_share",), http=_target())
    assert [proof.rounds for proof in done.proofs] == [3, 3]
    assert len(PacedEngine.started) == 1
    assert [running.stops for running in PacedEngine.started] == [1]


def _target() -> Any:
    from redline.tune.prove.http import Target

    return Target("http://127.0.0.1/v1/models", burst=2, seconds=0.05)


def test_a_running_server_cannot_show_what_acts_at_the_start_without_a_restart(tmp_path: Path) -> None:
    done = prove_http(tmp_path, f"{START}=1")
    assert done.proofs[0].verdict == "not testable here"
    assert "--restart" in done.proofs[0].why


def test_redlines_own_engine_needs_no_command_to_start_it_again(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="starts this engine itself"):
        run(tmp_path, {}, f"{START}=1", restart="true")
    assert not (tmp_path / "r.db").exists()
