from __future__ import annotations

import json
from pathlib import Path

from tests.cli.node_verbs import node
from tests.node.fake_boxes import BOXES


def test_a_plan_is_exported_and_its_notes_stand_beside(tmp_path: Path) -> None:
    root, script = tmp_path / "box", tmp_path / "box.sh"
    BOXES["cloud_vm"](root)
    said = node("export", "--as", "bash", "--root", str(root), "-o", str(script))
    assert (said.stdout, script.stat().st_mode & 0o111) == ("", 0o111)
    assert "note: " in said.stderr
    found = json.loads(node("export", "--as", "tuned", "--root", str(root), "--json").stdout)
    assert found["text"].startswith("# Written by `redline node export`\n[main]\n")
    assert found["notes"]


def test_a_profile_tells_which_files_of_the_box_win_over_it(tmp_path: Path) -> None:
    root = tmp_path / "box"
    BOXES["cloud_vm"](root)
    asked = ("export", "--as", "tuned", "--only", "vm.swappiness", "--root", str(root), "--json")
    rival = root / "etc/sysctl.d/50-old-guide.conf"
    rival.parent.mkdir(parents=True, exist_ok=True)
    rival.write_text("vm.swappiness = 77\n")
    found = json.loads(node(*asked).stdout)
    assert "reapply_sysctl = 0" in found["text"]
    told = [note for note in found["notes"] if "50-old-guide.conf has the last word on vm.swappiness" in note]
    assert len(told) == 1
    main = root / "etc/tuned/tuned-main.conf"
    main.parent.mkdir(parents=True, exist_ok=True)
    main.write_text("reapply_sysctl = 0\n")
    assert not [note for note in json.loads(node(*asked).stdout)["notes"] if "last word" in note]
