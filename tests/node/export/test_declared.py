from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from redline.node.change import Change, value_of
from redline.node.export.declared import write_unless
from redline.node.export.forms import export
from redline.node.plan import Plan
from tests.node.export.planned import EMPTY, ODD, planned


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned("epyc_8gpu", tmp_path_factory.mktemp("box"))[1]


def of_kind(plan: Plan, kind: str) -> list[Change]:
    return [change for change in plan.changes if change.kind == kind]


def test_a_playbook_has_one_task_per_change(plan: Plan) -> None:
    (play,) = yaml.safe_load(export(plan, "ansible"))
    assert play["become"] is True
    assert len(play["tasks"]) == len(plan.changes)
    copied = {task["ansible.builtin.copy"]["dest"] for task in play["tasks"] if "ansible.builtin.copy" in task}
    assert copied == {change.path for change in of_kind(plan, "file") if change.after is not None}


def test_a_playbooks_shell_writes_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "it's"
    for before, said in (("[x] y\n", "changed\n"), ("x [y]\n", ""), ("y\n", "")):
        path.write_text(before)
        change = Change("attribute", str(path), before.encode(), b"y", ("odd",))
        (play,) = yaml.safe_load(export(Plan((change,)), "ansible"))
        script = play["tasks"][0]["ansible.builtin.shell"]
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == said
        assert value_of(path.read_bytes()) == "y"


def test_a_playbook_runs_commands_only_when_their_files_changed() -> None:
    (play,) = yaml.safe_load(export(ODD, "ansible"))
    assert play["tasks"][-1]["when"] == "file_1 is changed or file_2 is changed or file_3 is changed"
    assert play["tasks"][1]["ansible.builtin.copy"]["content"].startswith("{% raw %}a='$HOME'")
    assert play["tasks"][1]["ansible.builtin.copy"]["mode"] == "0600"


@pytest.mark.slow
def test_against_ansible(tmp_path: Path) -> None:
    """The playbook brings a folder into the state, and a second run changes nothing."""
    beside = Path(sys.executable).with_name("ansible-playbook")
    program = shutil.which("ansible-playbook") or (str(beside) if beside.exists() else None)
    if program is None:
        pytest.skip("ansible-playbook is not installed: pip install ansible-core")
    here = tmp_path / "box"
    here.mkdir()
    (here / "value").write_text("[x] y\n")
    (here / "gone").write_text("x\n")
    text = "a='$HOME' `b` {{ x }} ${#array}\n  indented: yes\n"
    changes = (
        Change("attribute", f"{here}/value", b"[x] y", b"y", ("value",)),
        Change("file", f"{here}/made", None, text.encode(), ("file",), mode=0o600),
        Change("file", f"{here}/gone", b"x\n", None, ("gone",)),
        Change("command", "", None, None, ("command",), argv=("touch", f"{here}/ran")),
    )
    (tmp_path / "play.yml").write_text(export(Plan(changes), "ansible"))
    local = f"ansible_become=false ansible_python_interpreter={sys.executable}"
    command = [program, "-i", "localhost,", "-c", "local", "-e", local, "play.yml"]
    for changed in ("changed=4", "changed=0"):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert changed in done.stdout, done.stdout + done.stderr
    assert (here / "value").read_text() == "y\n"
    assert (here / "made").read_text() == text
    assert (here / "made").stat().st_mode & 0o777 == 0o600
    assert not (here / "gone").exists()
    assert (here / "ran").exists()


def test_user_data_brings_the_same_files_and_values(plan: Plan) -> None:
    text = export(plan, "cloud-init")
    assert text.startswith("#cloud-config\n")
    document: dict[str, Any] = yaml.safe_load(text)
    assert [file["path"] for file in document["write_files"]] == [
        change.path for change in of_kind(plan, "file") if change.after is not None
    ]
    shells = {command[2] for command in document["runcmd"] if command[:2] == ["sh", "-c"]}
    assert shells == {write_unless(change) for change in of_kind(plan, "attribute")}
    odd = yaml.safe_load(export(ODD, "cloud-init"))
    assert odd["write_files"][1]["encoding"] == "b64"
    assert odd["runcmd"][1:] == [["rm", "-f", "/etc/gone"], ["grubby", "--args=a b"]]


def test_a_container_gets_only_what_is_its_own(plan: Plan) -> None:
    engine = yaml.safe_load(export(plan, "compose"))["services"]["engine"]
    assert engine["sysctls"]["net.core.somaxconn"] == "65535"
    assert all(name.startswith(("net.ipv4.", "net.core.somaxconn")) for name in engine["sysctls"])
    assert engine["ulimits"]["memlock"] == {"soft": -1, "hard": -1}
    assert "sysctls" not in yaml.safe_load(export(EMPTY, "compose"))["services"]["engine"]
