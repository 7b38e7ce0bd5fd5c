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
