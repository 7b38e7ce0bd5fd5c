"""What can be proved beside the rows of the table: CPUs of the engine, attributes by their path, inert settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.tune.prove.candidate import Limits, candidates
from redline.tune.prove.prove import Options, prove
from redline.tune.prove.ways import CpusSwitch, cpus_for
from tests.tune.prove.boxes import OTHER, PLANTED, box, experiment, prove_http, value

MANY = len(os.sched_getaffinity(0))
needs_two = pytest.mark.skipif(MANY < 2, reason="two CPUs are needed to give one away")
THREADS = """
import threading, sys
for _ in range(2):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("up", flush=True)
for line in sys.stdin:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    print("more", flush=True)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    made = subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    made.stdout.readline()
    yield made
    made.kill()
    made.communicate()


def masks(pid: int) -> list[set[int]]:
    return [os.sched_getaffinity(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()]


@needs_two
def test_every_thread_of_the_engine_gets_the_cpus_and_gets_them_back(child: subprocess.Popen[str]) -> None:
    switch, usual = CpusSwitch([0]), os.sched_getaffinity(child.pid)
    switch.pids = (child.pid,)
    switch.to(False)
    assert masks(child.pid) == [usual] * 3
    switch.to(True)
    assert masks(child.pid) == [{0}] * 3
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("one more\n")
    child.stdin.flush()
    child.stdout.readline()
    assert masks(child.pid) == [{0}] * 4, "a thread that comes meanwhile is bound, too"
    switch.to(True)
    switch.close()
    assert masks(child.pid) == [usual] * 4
    switch.close()
    child.kill()
    child.wait()
    switch.to(True)  # an engine that died is no fault of the setting's


@needs_two
def test_an_engine_that_is_started_inherits_them() -> None:
    usual = os.sched_getaffinity(0)
    switch = CpusSwitch([0])
    switch.to(True)
    try:
        told = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        switch.started()
    assert told.stdout.strip() == "{0}"
    assert os.sched_getaffinity(0) == usual
    switch.close()


def test_how_many_or_which() -> None:
    mine = sorted(os.sched_getaffinity(0))
    assert cpus_for("1") == ([mine[0]] if MANY > 1 else f"the engine may use {MANY} CPUs already")
    assert "may use" in str(cpus_for(str(MANY)))
    assert "no CPUs 4000-4001 here" in str(cpus_for("4000-4001"))
    assert "neither" in str(cpus_for("many"))


def test_the_cpus_of_a_foreign_server_are_left_alone(tmp_path: Path) -> None:
    (proof,) = prove_http(tmp_path, "engine.cpus=1").proofs
    assert (proof.verdict, "redline starts itself" in proof.why) == ("not testable here", True)
    with pytest.raises(UsageError, match="how many CPUs"):
        candidates(box(tmp_path / "box"), ["engine.cpus"], Limits())


def test_an_attribute_that_no_row_knows(tmp_path: Path) -> None:
    path = "/proc/sys/" + PLANTED.replace(".", "/")
    done = prove_http(tmp_path, f"{path}=1", "/proc/sys/vm/no_such=1")
    assert done.proofs[0].effects[0].effect.ratio < 0.9, "40 ms against 5 ms, and what a busy box adds"
    assert [proof.verdict == "not testable here" for proof in done.proofs] == [False, True]
    assert "there is no such file here" in done.proofs[1].why
    assert value(tmp_path / "box", PLANTED) == "8\n"
    assert done.left == []


@pytest.mark.parametrize("wrong", ["/etc/passwd=x", "/sys/../etc/passwd=x", "/proc/sys/vm/swappiness", "/dev/sda=1"])
def test_what_is_no_attribute_is_never_written(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        candidates(box(tmp_path / "box"), [wrong], Limits())


def test_two_values_of_one_setting_have_rounds_of_their_own(tmp_path: Path) -> None:
    done = prove_http(tmp_path, f"{PLANTED}=1", f"{PLANTED}=7", f"{OTHER}=50")
    first, second, _ = done.proofs
    assert first.effects[0].effect.ratio < 0.7
    assert 0.7 < second.effects[0].effect.ratio < 1.2
    assert [proof.rounds for proof in done.proofs] == [4, 4, 4]


def test_what_the_audit_calls_inert_is_tried_when_asked(tmp_path: Path) -> None:
    (left,) = prove_http(tmp_path / "a", "vm.swappiness=1").proofs
    assert (left.verdict, left.why.startswith("inert")) == ("not testable here", True)
    (tried,) = prove_http(tmp_path / "b", "vm.swappiness=1", inert=True).proofs
    assert (tried.verdict, tried.rounds) == ("no measurable effect", 4)
    assert (tried.present, tried.wanted) == ("60", "1")
    assert value(tmp_path / "b" / "box", "vm.swappiness") == "60\n"


@pytest.mark.slow
@needs_two
def test_against_redlines_own_engine(tmp_path: Path) -> None:
    """A real engine on this very box, and a CPU that is taken from it while it answers. Nothing else is changed."""
    if find_spec("torch") is None:
        pytest.skip("redline's engine needs torch: pip install 'redline[engine]'")
    own = experiment({}, requests=4, concurrency=[2], duration_s=15).model_copy(
        update={"engines": [EngineSpec(kind="redline")], "models": [ModelSpec(id="bundled:tiny")]}
    )
    options = Options(rounds=3, settle_s=0.0)
    done = prove(own, ["engine.cpus=1"], options, state_dir=tmp_path / "state", db=tmp_path / "r.db")
    assert (done.status, done.errors, done.left) == ("done", [], [])
    (proof,) = done.proofs
    assert proof.how == "changed while the engine runs"
    assert {"output_tokens_per_s", "ttft_ms.p50", "itl_ms.p50"} <= {one.effect.metric for one in proof.effects}
    assert "run_queue_ms" in {shift.name for shift in proof.shifts}
