from __future__ import annotations

import json
import os
from pathlib import Path

from tests.cli.node_verbs import node


def test_every_way_with_its_measurements(tmp_path: Path) -> None:
    for name in ("model", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(os.urandom(100_000))
    flags = [str(tmp_path / "model"), "--from", str(tmp_path / "other"), "--repeats", "2"]
    found = json.loads(node("load-time", *flags, "--json").stdout)
    assert [way["name"] for way in found["ways"]] == ["cold", "cold, mapped", "warm", f"cold {tmp_path / 'other'}"]
    assert all(len(way["seconds"]) == 2 or way["skipped"] for way in found["ways"])
    assert "median s" in node("load-time", *flags).stdout
