from __future__ import annotations

import json
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault, UsageError
from tests.cli.node_verbs import node
from tests.node.gpu_boxes import eight_gpus


def test_this_box_in_a_snapshot_is_shown_as_it_is(tmp_path: Path) -> None:
    archive = tmp_path / "box.tar.gz"
    said = json.loads(node("snapshot", "-o", str(archive), "--json").stdout)
    assert said == {"file": str(archive), "bytes": archive.stat().st_size}
    live = json.loads(node("facts", "--json").stdout)
    copy = json.loads(node("facts", "--json", "--root", str(archive)).stdout)
    for name in ("devices", "software", "containers", "kernel", "gpu", "packages", "virtualisation"):
        assert copy[name] == live[name], name
    node("audit", "--root", str(archive), "--json", code=5)


def test_one_screen_and_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "box.svg"
    done = node("facts", "--root", str(eight_gpus(tmp_path / "box")), "--svg", str(picture))
    assert "GPU 0, GPU 1" in done.stdout
    assert picture.read_text().startswith("<svg ")
    assert f"wrote {picture}" in done.stderr.replace("\n", "")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        node("facts", "--svg", str(tmp_path / "no" / "folder.svg"))


def test_a_place_that_holds_no_box(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no copy of a box"):
        node("facts", "--root", str(tmp_path))
