"""A run that was cut short goes on where it was, whatever cut it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.report.assemble import load_report
from redline.store.read import Reader
from redline.tune.compare import compare
from redline.tune.resume import resume
from tests.tune.paced_engine import InterruptAfter
from tests.tune.test_search import experiment


@pytest.mark.usefixtures("paced")
def test_after_ctrl_c_only_what_is_left_is_measured(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    plan = experiment(concurrency=[1, 2, 3], duration=1.0, repeats=2)
    first = compare(plan, db=db, events=InterruptAfter(2))
    assert first.status == "interrupted"
    with Reader.open(db) as reader:
        before = [point for trial in reader.run(first.run_id).trials for point in trial.points]
    kept = [point.id for point in before if point.complete and point.stopped_by != "interrupted"]
    assert len(kept) == 2
    second = resume(first.run_id, db=db)
    assert (second.run_id, second.status) == (first.run_id, "done")
    with Reader.open(db) as reader:
        run = reader.run(first.run_id)
        points = [point for trial in run.trials for point in trial.points]
        assert {point.id for point in points} >= set(kept)
        whole = [point for point in points if point.stopped_by != "interrupted"]
        assert sorted(point.value for point in whole) == [1, 1, 2, 2, 3, 3]
        report = load_report(reader, [first.run_id])
    assert report.missing == ()
    assert report.banners == ()
    [model] = report.models
    assert {load: len(found) for load, found in model.engines[0].points.items()} == {
        ("closed", 1.0): 2, ("closed", 2.0): 2, ("closed", 3.0): 2,
    }  # fmt: skip


@pytest.mark.usefixtures("paced")
def test_a_search_goes_on_from_what_it_has_seen(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    plan = experiment(flags={"slots": 6, "itl-ms": 4, "ttft-ms": 30}, search="knee", search_precision=0.3)
    first = compare(plan, db=db, events=InterruptAfter(3))
    assert first.status == "interrupted"
    with Reader.open(db) as reader:
        before = [point for trial in reader.run(first.run_id).trials for point in trial.points]
    resume("last", db=db)
    with Reader.open(db) as reader:
        points = [point for trial in reader.run(first.run_id).trials for point in trial.points]
    whole = [point for point in points if point.stopped_by != "interrupted"]
    assert whole[-1].outcome["search"]["stop"]
    assert len(points) > len(before)
    assert whole[0].value == 1
    assert [point.value for point in points].count(1) <= 2, "it does not begin again"


@pytest.mark.usefixtures("paced")
def test_what_is_complete_or_running_is_not_resumed(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    done = compare(experiment(concurrency=[1], duration=0.5), db=db)
    with pytest.raises(UsageError, match="nothing is left"):
        resume(done.run_id, db=db)
    with pytest.raises(UsageError, match="no run"):
        resume("nonsense", db=db)


def test_after_kill_9_in_the_middle_of_a_point(tmp_path: Path) -> None:
    db = tmp_path / "r.db"
    with PacedServer(Pace(ttft_ms=5, itl_ms=2)) as server:
        command = [
            sys.executable, "-m", "redline", "bench", "--url", server.base_url, "--model", "paced", "--db", str(db),
            "--concurrency", "1,2,3", "--duration", "1.5", "--prompt-tokens", "16", "--output-tokens", "16", "--json",
            "--calibrate", "0",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            _wait_for_points(db, 2, process)
            process.kill()
            process.wait()
        with Reader.open(db) as reader:
            assert reader.run().status == "interrupted"
        outcome = resume("last", db=db)
        assert outcome.status == "done"
    with Reader.open(db) as reader:
        run = reader.run()
        points = [point for trial in run.trials for point in trial.points if point.complete]
        assert sorted(point.value for point in points) == [1, 2, 3]
        assert load_report(reader, ["last"]).missing == ()


def _wait_for_points(db: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until the point number `count` is under way."""
    end = time.monotonic() + 45
    while time.monotonic() < end and process.poll() is None:
        if db.exists():
            with Reader.open(db) as reader:
                runs = reader.runs(1)
            if runs and runs[0].points >= count:
                time.sleep(0.7)
                return
        time.sleep(0.1)
    raise AssertionError("the run did not get there")
