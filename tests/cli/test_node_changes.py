"""The verbs that change a box, as one types them, on a box in a folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from redline.cli.node import application
from redline.errors import ApplyFailed, ChangedSince, JournalFault, NodeBusy, RedlineError, UsageError
from tests.node.folder_box import folder_box, state_hash

SWAPPINESS = "proc/sys/vm/swappiness"
HERE = ["--only", "vm.swappiness,vm.max_map_count"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder_box(tmp_path)
    return tmp_path


def node(root: Path, *arguments: str, code: int = 0, said: type[RedlineError] | None = None) -> str:
    done = CliRunner().invoke(application(), [*arguments, "--root", str(root)])
    if said is not None:
        assert isinstance(done.exception, said), done.output
        return str(done.exception)
    assert done.exit_code == code, f"{done.output} {done.exception!r}"
    return done.output


def test_there_and_back(root: Path) -> None:
    was = state_hash(root)
    assert "-60\n+10\n" in node(root, "plan", *HERE)
    assert state_hash(root) == was, "a plan changes nothing"
    node(root, "apply", *HERE, "--dry-run")
    assert state_hash(root) == was
    assert "made and read back" in node(root, "apply", *HERE)
    assert (root / SWAPPINESS).read_text() == "10\n"
    assert "in force" in node(root, "verify")
    assert "nothing to change" in node(root, "apply", *HERE)
    assert "as they were before" in node(root, "revert", "last")
    assert state_hash(root) == was
    assert "has changed nothing here" in node(root, "verify")
    assert "nothing to revert" in node(root, "revert", "--all")


def test_a_transaction_that_was_cut_short_is_told_also_where_nothing_is_left_to_change(root: Path) -> None:
    """A boot applies files that were written before the cut: values are right then, and the transaction is open."""
    node(root, "apply", *HERE)
    (journal,) = (root / "var/lib/redline/node").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))  # without its end
    assert "was cut short" in node(root, "apply", *HERE, said=NodeBusy)
    assert "nothing to change" in node(root, "apply", *HERE, "--dry-run")


def test_as_json(root: Path) -> None:
    made = json.loads(node(root, "plan", *HERE, "--json"))
    assert {change["path"] for change in made["changes"]} >= {f"/{SWAPPINESS}", "/etc/sysctl.d/90-redline.conf"}
    done = json.loads(node(root, "apply", *HERE, "--json"))
    assert done["status"] == "applied"
    assert {one["state"] for one in json.loads(node(root, "verify", "--json"))} == {"in force"}
    reverted = json.loads(node(root, "revert", done["txn"], "--json"))
    assert len(reverted[0]["undone"]) == len(done["changes"])


def test_drift_after_the_change_is_code_five(root: Path) -> None:
    node(root, "apply", *HERE)
    (root / SWAPPINESS).write_text("60\n")
    assert "changed" in node(root, "verify", code=5)


def test_a_third_party_is_left_or_overwritten(root: Path) -> None:
    was = state_hash(root)
    node(root, "apply", *HERE)
    (root / SWAPPINESS).write_text("33\n")
    assert "redline left 10, it is 33 now" in node(root, "revert", "last", said=ChangedSince)
    node(root, "revert", "last", "--force")
    assert state_hash(root) == was


def test_risk_is_asked_about(root: Path) -> None:
    nic = root / "sys/class/net/eth0"
    (nic / "device").mkdir()
    (nic / "operstate").write_text("up\n")
    (nic / "speed").write_text("100000\n")
    jumbo = ["--only", "net.mtu", "--no-persist", "--profile", "throughput"]
    assert "nobody to ask" in node(root, "apply", *jumbo, said=UsageError)
    assert (nic / "mtu").read_text() == "1500\n"
    said = node(root, "apply", *jumbo, "--yes", "--confirm-within", "300")
    assert "undone by itself unless" in said
    assert "stays" in node(root, "confirm")
    assert (nic / "mtu").read_text() == "9000\n"
    node(root, "revert", "last")
    assert (nic / "mtu").read_text() == "1500\n"


def test_what_makes_no_sense(root: Path) -> None:
    for arguments in (["revert"], ["revert", "x", "--all"], ["revert", "1999"], ["confirm"], ["apply", "--resume"]):
        node(root, *arguments, said=UsageError)
    node(root / "nowhere", "plan", said=UsageError)
    node(root, "plan", "--only", "no.such.thing", said=UsageError)


def test_no_root_and_a_read_only_box(tmp_path: Path) -> None:
    folder_box(tmp_path / "a").box.save(tmp_path / "a")
    (tmp_path / "a/redline-box.json").write_text(json.dumps({"root": False}))
    assert "takes root" in node(tmp_path / "a", "apply", *HERE, said=ApplyFailed)
    box = folder_box(tmp_path / "b", refuse={"/proc/sys/vm/*": "EROFS"})
    box.box.save(tmp_path / "b")
    was = state_hash(tmp_path / "b")
    assert "read-only" in node(tmp_path / "b", "apply", *HERE, said=ApplyFailed)
    assert state_hash(tmp_path / "b") == was
    assert "cannot be made" in node(tmp_path / "b", "apply", *HERE, "--state-dir", "/proc/x", said=JournalFault)


def test_a_snapshots_file_is_planned_for_and_not_changed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from redline.node.fake import FakeSys
    from redline.node.snapshot import snapshot

    file = tmp_path_factory.mktemp("copies") / "box.tar.gz"
    snapshot(FakeSys(root), file)
    was = file.read_bytes()
    live = ["--only", "vm.max_map_count", "--no-persist"]
    assert node(file, "plan", *live) == node(root, "plan", *live), "the same plan as for the box itself"
    assert "vm.max_map_count" in node(file, "export", "--as", "bash", *live)
    for verb in (["apply", *live], ["verify"], ["revert", "last"], ["confirm"], ["prove", "-s", "control"]):
        assert "nothing is changed in it" in node(file, *verb, said=UsageError)
    assert file.read_bytes() == was
    assert [path.name for path in file.parent.iterdir()] == ["box.tar.gz"]
    folder = file.parent / "box"
    subprocess.run(["mkdir", str(folder)], check=True)
    subprocess.run(["tar", "xf", str(file), "-C", str(folder)], check=True)
    assert "made and read back" in node(folder, "apply", *live), "what the error advises works"
