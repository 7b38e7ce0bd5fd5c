"""Flips, faults and verdicts, with short connections to a listener that obeys a setting of a box in a folder."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from redline.errors import ChangedSince, EnvironmentFault, NodeBusy, UsageError
from redline.node.fake import FakeSys
from redline.node.revert import revert
from redline.node.transaction import transactions
from redline.report.assemble import load_report
from redline.report.markdown import render_markdown
from redline.store.read import Reader
from redline.tune.events import Events
from redline.tune.preflight import Job
from redline.tune.prove import switch as switching
from redline.tune.prove.prove import worth_keeping
from tests.tune.prove.boxes import OTHER, PLANTED, box, planted, prove_http, value

START = "vm.max_map_count"
"""A row that acts at the engine's start."""


def holding(tmp_path: Path) -> list[str]:
    return [found.txn for found in transactions(tmp_path / "state") if found.holds]


def test_helps_hurts_nothing_and_not_testable_are_told_apart(tmp_path: Path) -> None:
    done = prove_http(tmp_path, f"{PLANTED}=1", f"{PLANTED}=40", f"{OTHER}=50", "vm.swappiness", "vm.zone_reclaim_mode")
    assert (done.status, done.errors, done.left) == ("done", [], [])
    assert [(one.id, one.wanted, one.verdict) for one in done.proofs] == [
        (PLANTED, "1", "helps"),
        (PLANTED, "40", "hurts"),
        (OTHER, "50", "no measurable effect"),
        ("vm.swappiness", "10", "not testable here"),
        ("vm.zone_reclaim_mode", "", "not testable here"),
    ]
    assert "no swap device" in done.proofs[3].why
    assert done.useful == [PLANTED]
    assert value(tmp_path / "box", PLANTED) == "8\n"
    assert list((tmp_path / "state").glob("*.jsonl")) == []


def test_the_report_and_the_profile_say_what_was_found(tmp_path: Path) -> None:
    done = prove_http(tmp_path, f"{PLANTED}=1", "vm.swappiness", rounds=3)
    with Reader.open(tmp_path / "r.db") as reader:
        report = load_report(reader, [done.run_id])
        (row,) = reader.runs(5)
    assert (row.status, report.missing) == ("done", ())
    sections = {section.key: section for section in report.sections}
    assert [line[:3] for line in sections["node-proof"].rows] == [
        (PLANTED, "8 → 1", "▲ helps"),
        ("vm.swappiness", "60 → 10", "? not testable here"),
    ]
    assert "rounds" not in sections
    assert "no swap device" in render_markdown(report)
    stored = orjson.loads(next(a.path for a in row.artifacts if a.kind == "node-proof").read_bytes())
    assert [one["verdict"] for one in stored["settings"]] == ["helps", "not testable here"]
    ids = [line for line in worth_keeping(done.proofs).splitlines() if not line.startswith("#")]
    assert ids == [PLANTED]


def test_values_take_turns_in_alternating_order(tmp_path: Path) -> None:
    done = prove_http(tmp_path, f"{OTHER}=50")
    with Reader.open(tmp_path / "r.db") as reader:
        trials = reader.run(done.run_id).trials
    points = sorted((point.started_ns, point.outcome["prove"]["wanted"]) for trial in trials for point in trial.points)
    assert [wanted for _, wanted in points] == [False, True, True, False, True, False, False, True]
    assert all("interrupts" in point.outcome["prove"]["signals"] for trial in trials for point in trial.points)


class _Interfering(Events):
    """Does something before turn `at`, from 0. The second and the third turn are the wanted value's."""

    def __init__(self, at: int, what: Any) -> None:
        self.left, self.what = at, what

    def turn(self, job: Job, number: int) -> None:
        self.left -= 1
        if self.left == -1:
            self.what()


def test_ctrl_c_puts_the_value_back_and_keeps_what_was_measured(tmp_path: Path) -> None:
    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    done = prove_http(tmp_path, f"{PLANTED}=1", f"{OTHER}=50", events=_Interfering(6, interrupt))
    assert done.status == "interrupted"
    assert [one.id for one in done.proofs] == [PLANTED]
    assert done.proofs[0].rounds == 3
    assert value(tmp_path / "box", PLANTED) == "8\n"
    assert holding(tmp_path) == []


def test_a_fault_in_the_middle_puts_the_value_back(tmp_path: Path) -> None:
    def fail() -> None:
        assert value(tmp_path / "box", PLANTED) == "1\n"
        raise EnvironmentFault("the disk is full")

    done = prove_http(tmp_path, f"{PLANTED}=1", f"{OTHER}=50", events=_Interfering(2, fail), rounds=3)
    assert [error.what for error in done.errors] == ["the disk is full"]
    assert done.proofs[0].why == "the disk is full"
    assert value(tmp_path / "box", PLANTED) == "8\n"


def test_a_value_that_somebody_else_writes_ends_the_trial_and_is_left_alone(tmp_path: Path) -> None:
    def tuned() -> None:
        Path(planted(tmp_path / "box")).write_text("5\n")

    done = prove_http(tmp_path, f"{PLANTED}=1", events=_Interfering(2, tuned))
    assert [type(error) for error in done.errors] == [ChangedSince]
    assert value(tmp_path / "box", PLANTED) == "5\n"


def test_kill_9_leaves_a_journal_that_the_next_trial_points_to_and_revert_undoes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        monkeypatch.setattr(switching.JournalSwitch, "close", lambda self: None)
        raise Killed

    with pytest.raises(Killed):
        prove_http(tmp_path, f"{PLANTED}=1", events=_Interfering(2, kill))
    assert value(tmp_path / "box", PLANTED) == "1\n"
    sys = FakeSys(tmp_path / "box")
    with pytest.raises(NodeBusy, match="another redline is trying"):
        prove_http(tmp_path, f"{PLANTED}=40", sys=sys)
    monkeypatch.setattr(switching, "start_ticks", lambda pid: 0)  # its process is gone
    with pytest.raises(NodeBusy, match="was killed") as caught:
        prove_http(tmp_path, f"{PLANTED}=1", sys=sys)
    (txn,) = holding(tmp_path)
    assert caught.value.fix == f"redline node revert {txn}"
    revert(sys, tmp_path / "state")
    assert value(tmp_path / "box", PLANTED) == "8\n"


def test_a_box_that_refuses_the_value_is_a_fault_of_that_setting_alone(tmp_path: Path) -> None:
    sys = box(tmp_path / "box", refuse={"*/stat_interval": "EINVAL"})
    done = prove_http(tmp_path, f"{PLANTED}=1", f"{OTHER}=50", sys=sys, rounds=3)
    assert [one.verdict for one in done.proofs] == ["not measured", "no measurable effect"]
    assert "kernel does not take this value" in done.errors[0].why


def test_without_root_nothing_is_testable(tmp_path: Path) -> None:
    done = prove_http(tmp_path, f"{PLANTED}=1", sys=box(tmp_path / "box", root=False))
    assert done.proofs[0].verdict == "not testable here"


def test_the_control_changes_nothing_and_finds_nothing(tmp_path: Path) -> None:
    done = prove_http(tmp_path, "control", rounds=3)
    assert done.proofs[0].verdict == "no measurable effect"
    assert not (tmp_path / "state").exists()


def test_what_makes_no_sense_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few"):
        prove_http(tmp_path, f"{PLANTED}=1", rounds=2)
    with pytest.raises(UsageError, match="no metric 'ttft'"):
        prove_http(tmp_path, f"{PLANTED}=1", metrics=("ttft",))
    assert not (tmp_path / "r.db").exists()


def test_signals_that_end_the_process_wait_until_a_change_is_whole() -> None:
    seen = []

    def change() -> None:
        with switching.shielded():
            signal.raise_signal(signal.SIGINT)
            seen.append("whole")

    with pytest.raises(KeyboardInterrupt):
        change()
    assert seen == ["whole"]
