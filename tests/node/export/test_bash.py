from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from redline.node.change import Change, value_of
from redline.node.export.forms import export
from redline.node.plan import Plan
from tests.node.boxes import plant
from tests.node.export.planned import EMPTY, ODD, planned
from tests.node.fake_boxes import BOXES


def run(script: str, root: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        ["bash", "-s", "--", *arguments], input=script, capture_output=True, text=True, check=False,
        env={**os.environ, "REDLINE_ROOT": str(root)},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def content(root: Path, plan: Plan) -> dict[str, str | bytes | None]:
    """What the plan is about: values of attributes, bytes of files."""
    found: dict[str, str | bytes | None] = {}
    for change in plan.changes:
        path = root / change.path.lstrip("/")
        if change.kind == "attribute":
            found[change.path] = value_of(path.read_bytes())
        elif change.kind == "file":
            found[change.path] = path.read_bytes() if path.is_file() else None
    return found


@pytest.mark.parametrize("name", ["epyc_8gpu", "cloud_vm", "grace"])
def test_it_does_what_is_planned_once_and_takes_it_back(name: str, tmp_path: Path) -> None:
    sys, plan = planned(name, tmp_path)
    assert len(plan.changes) > 10
    before, script = content(sys.root, plan), export(plan, "bash")
    folders = {path for path in (sys.root / "etc").rglob("*") if path.is_dir()}
    run(script, sys.root)
    done = content(sys.root, plan)
    for change in plan.changes:
        if change.kind == "attribute":
            assert done[change.path] == value_of(change.after or b"")
        elif change.kind == "file" and change.after is not None:
            assert str(done[change.path]).replace("node export`.", "") != str(before[change.path])
    again = run(script, sys.root)
    assert again.splitlines()[-1] == "0 changed"
    run(script, sys.root, "--revert")
    # the kernel itself zeroes the partner of a value that comes back; a folder does not
    coupled = {path for change in plan.changes for path in change.paths if change.coupled}
    after = content(sys.root, plan)
    assert {path: value for path, value in after.items() if path not in coupled} == {
        path: value for path, value in before.items() if path not in coupled
    }
    assert not (tmp_path / "var/lib/redline/export").exists()
    assert {path for path in (sys.root / "etc").rglob("*") if path.is_dir()} == folders
    assert "nothing to take back" in run(script, sys.root, "--revert")


def test_of_a_coupled_pair_the_one_that_counts_comes_back(tmp_path: Path) -> None:
    ratio, bytes_ = "proc/sys/vm/dirty_ratio", "proc/sys/vm/dirty_bytes"
    plant(tmp_path, {ratio: "0\n", bytes_: "65536\n"})
    script = export(Plan((Change("attribute", f"/{ratio}", b"0", b"10", ("x",), coupled=(f"/{bytes_}",)),)), "bash")
    run(script, tmp_path)
    assert (tmp_path / ratio).read_text() == "10\n"
    (tmp_path / bytes_).write_text("0\n")  # as the kernel does
    said = run(script, tmp_path, "--revert")
    assert (tmp_path / bytes_).read_text() == "65536\n"
    assert ratio not in said  # its 0 would be refused


def test_everything_that_has_to_be_quoted(tmp_path: Path) -> None:
    plant(tmp_path, {"sys/a b/it's": "[x] y\n", "etc/gone": "x\n"})
    script = export(ODD, "bash")
    said = run(script, tmp_path)
    assert (tmp_path / "sys/a b/it's").read_text() == "y\n"
    assert (tmp_path / "etc/odd.conf").read_bytes() == ODD.changes[1].after
    assert (tmp_path / "etc/odd.conf").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc/binary").read_bytes() == b"\xff\x00no end"
    assert not (tmp_path / "etc/gone").exists()
    assert "not run on a copy: grubby --args=a b" in said
    assert "not run on a copy: grubby --remove-args=a b" in run(script, tmp_path, "--revert")
    assert (tmp_path / "etc/gone").read_text() == "x\n"
    assert not (tmp_path / "etc/odd.conf").exists()
    assert value_of((tmp_path / "sys/a b/it's").read_bytes()) == "x"


def test_the_first_state_is_what_comes_back_after_two_runs(tmp_path: Path) -> None:
    plant(tmp_path, {"sys/a b/it's": "[x] y\n", "etc/gone": "x\n"})
    script = export(ODD, "bash")
    run(script, tmp_path)
    (tmp_path / "sys/a b/it's").write_text("other\n")
    run(script, tmp_path)
    run(script, tmp_path, "--revert")
    assert (tmp_path / "sys/a b/it's").read_text() == "x\n"


def test_what_is_absent_is_said_and_what_is_refused_ends_with_1(tmp_path: Path) -> None:
    script = export(ODD, "bash")
    assert "absent: /sys/a b/it's" in run(script, tmp_path)
    plant(tmp_path, {"sys/a b/it's/folder": ""})  # a folder cannot be written
    run(script, tmp_path, code=1)


def test_nothing_to_do_and_a_wrong_flag(tmp_path: Path) -> None:
    assert run(export(EMPTY, "bash"), tmp_path) == "0 changed\n"
    run(export(EMPTY, "bash"), tmp_path, "--revrt", code=2)


@pytest.mark.parametrize("name", [*BOXES, "odd", "empty"])
def test_against_shellcheck(name: str, tmp_path: Path) -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed: apt install shellcheck")
    plan = {"odd": ODD, "empty": EMPTY}.get(name) or planned(name, tmp_path)[1]
    done = subprocess.run([checker, "-"], input=export(plan, "bash"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
