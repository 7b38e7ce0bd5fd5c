"""Every form of a plan, carried out on a copy of the box, gives the state that `apply` gives on another copy."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from redline.node.apply import apply
from redline.node.audit import audit
from redline.node.change import value_of
from redline.node.export.forms import export
from redline.node.fake import FakeSys
from redline.node.plan import Plan, plan
from tests.node.fake_boxes import BOXES

ONLY = ["vm", "thp", "net.core", "net.ipv4", "kernel", "blk", "fs"]
State = dict[str, str | None]


def state(root: Path, made: Plan, kinds: tuple[str, ...] = ("attribute", "file")) -> State:
    """Values of attributes and what files say; not who says it."""
    found: State = {}
    for change in made.changes:
        path = root / change.path.lstrip("/")
        if change.kind not in kinds:
            continue
        if change.kind == "attribute":
            found[change.path] = value_of(path.read_bytes())
        else:
            found[change.path] = path.read_text().partition("\n")[2] if path.is_file() else None
    return found


@pytest.fixture(params=["epyc_8gpu", "cloud_vm"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Plan, State]:
    """A box as it is, its plan, and the state that `apply` brings a copy of it to."""
    name, root = str(request.param), tmp_path / "box"
    sys_ = BOXES[name](root)
    made = plan(sys_, audit(sys_, "latency", ONLY))
    assert len(made.changes) > 10
    assert all(change.kind != "command" for change in made.changes)
    shutil.copytree(sys_.root, tmp_path / "applied", symlinks=True)
    applied = FakeSys(tmp_path / "applied")
    apply(applied, made.changes, tmp_path / "state")
    wanted = state(applied.root, made)
    assert wanted != state(sys_.root, made)
    return sys_.root, made, wanted


def there(root: Path, made: Plan) -> Callable[[str], str]:
    """Paths of the plan as paths below `root`, in a text."""
    paths = sorted({change.path for change in made.changes}, key=len, reverse=True)

    def moved(text: str) -> str:
        for path in paths:
            text = text.replace(path, f"{root}{path}")
        return text

    return moved


def test_bash(box: tuple[Path, Plan, State]) -> None:
    root, made, wanted = box
    environment = {**os.environ, "REDLINE_ROOT": str(root)}
    subprocess.run(
        ["bash", "-s"], input=export(made, "bash"), text=True, check=True, env=environment, capture_output=True
    )
    assert state(root, made) == wanted


def test_cloud_init(box: tuple[Path, Plan, State]) -> None:
    root, made, wanted = box
    document = yaml.safe_load(export(made, "cloud-init"))
    for file in document["write_files"]:
        path = root / file["path"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"])
    moved = there(root, made)
    for command in document["runcmd"]:
        subprocess.run([moved(word) for word in command], check=True)
    assert state(root, made) == wanted


def test_systemd(box: tuple[Path, Plan, State]) -> None:
    """Live values alone: files are not a unit's matter."""
    root, made, wanted = box
    moved = there(root, made)
    for line in export(made, "systemd").splitlines():
        if line.startswith("ExecStart=/bin/sh -c "):
            quoted = line.removeprefix("ExecStart=/bin/sh -c ").strip('"')
            command = quoted.replace('\\"', '"').replace("\\\\", "\\").replace("%%", "%").replace("$$", "$")
            subprocess.run(["/bin/sh", "-c", moved(command)], check=True)
    live = {change.path for change in made.changes if change.kind == "attribute"}
    assert state(root, made, ("attribute",)) == {path: value for path, value in wanted.items() if path in live}


def test_tuned(box: tuple[Path, Plan, State]) -> None:
    """What TuneD would write, read from its profile."""
    _, made, wanted = box
    profile = configparser.RawConfigParser(delimiters=("=",))
    profile.optionxform = str  # type: ignore[assignment,method-assign]
    profile.read_string(export(made, "tuned"))
    values = {
        f"/proc/sys/{name.translate(str.maketrans('./', '/.'))}": value for name, value in profile["sysctl"].items()
    }
    values |= dict(profile["sysfs"].items()) if profile.has_section("sysfs") else {}
    live = {change.path for change in made.changes if change.kind == "attribute"}
    assert {path: value_of(value.encode()) for path, value in values.items()} == {path: wanted[path] for path in live}


@pytest.mark.slow
def test_ansible(tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("ansible-playbook")
    program = shutil.which("ansible-playbook") or (str(beside) if beside.exists() else None)
    if program is None:
        pytest.skip("ansible-playbook is not installed: pip install ansible-core")
    sys_ = BOXES["epyc_8gpu"](tmp_path / "box")
    made = plan(sys_, audit(sys_, "latency", ["thp", "vm.swappiness", "vm.max_map_count"]))
    shutil.copytree(sys_.root, tmp_path / "applied", symlinks=True)
    applied = FakeSys(tmp_path / "applied")
    apply(applied, made.changes, tmp_path / "state")
    for change in made.changes:  # Ansible's copy makes no folders above
        (sys_.root / change.path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (play,) = yaml.safe_load(export(made, "ansible"))
    moved = there(sys_.root, made)
    for task in play["tasks"]:
        if "ansible.builtin.copy" in task:  # its content keeps the box's own paths
            task["ansible.builtin.copy"]["dest"] = moved(task["ansible.builtin.copy"]["dest"])
        else:
            task["ansible.builtin.shell"] = moved(task["ansible.builtin.shell"])
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    local = f"ansible_become=false ansible_python_interpreter={sys.executable}"
    done = subprocess.run(
        [program, "-i", "localhost,", "-c", "local", "-e", local, "play.yml"], cwd=tmp_path, capture_output=True,
        text=True, check=False, env={**os.environ, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert state(sys_.root, made) == state(applied.root, made)
