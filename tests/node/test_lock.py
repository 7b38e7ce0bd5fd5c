from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from redline.errors import NodeBusy
from redline.node.lock import identity, locked

HOLD = (
    "import sys, time; from pathlib import Path; from redline.node.lock import locked\n"
    "with locked(Path(sys.argv[1]), 'a long apply'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_second_one_is_told_who_holds_it(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(NodeBusy, match=f"pid {process.pid}: a long apply"), locked(tmp_path, "revert"):
            pass
    finally:
        end(process)


def test_what_a_killed_owner_left_is_taken_over(tmp_path: Path) -> None:
    end(holder(tmp_path))
    assert json.loads((tmp_path / "lock").read_text())["doing"] == "a long apply", "its name is still in there"
    with locked(tmp_path, "revert"):
        assert json.loads((tmp_path / "lock").read_text())["doing"] == "revert"
    assert (tmp_path / "lock").read_text() == ""


def test_pid_and_start_time_decide_where_the_file_system_has_no_locks(tmp_path: Path) -> None:
    process = holder(tmp_path)
    owner = (tmp_path / "lock").read_text()
    (tmp_path / "lock").unlink()  # another file: the kernel's lock is not on it
    (tmp_path / "lock").write_text(owner)
    try:
        with pytest.raises(NodeBusy), locked(tmp_path, "revert"):
            pass
    finally:
        end(process)
    with locked(tmp_path, "revert"):
        pass


@pytest.mark.parametrize("change", [{"boot": "another"}, {"start": 1}, {"pid": "x"}])
def test_a_pid_that_is_somebody_else_by_now_holds_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    parent = {**identity(), "pid": 1, "start": 0, **change}
    (tmp_path / "lock").write_text(json.dumps(parent))
    with locked(tmp_path, "apply"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "nonsense"])
def test_a_name_that_was_cut_short_holds_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with locked(tmp_path, "apply"):
        pass


def test_it_is_let_go_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "apply"):
        raise ZeroDivisionError
    with locked(tmp_path, "apply"):
        pass
