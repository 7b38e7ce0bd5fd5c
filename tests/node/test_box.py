from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from redline.errors import UsageError
from redline.node import box as module
from redline.node.box import node_facts, opened
from redline.node.fake import FakeSys
from redline.node.live import LiveSys
from redline.node.tree import is_skipped
from redline.report.box import box_parts
from redline.report.topology import topology_svg
from tests.node.fake_boxes import BOXES
from tests.node.gpu_boxes import EIGHT, eight_gpus, nvml_of, one_node


def test_each_node_with_what_hangs_on_it(tmp_path: Path) -> None:
    facts = node_facts(FakeSys(eight_gpus(tmp_path)), nvml_of(EIGHT))
    one = facts["nodes"][1]
    assert (one["cpus"], one["distance"]) == ("2-3,6-7", "32 10")
    assert one["gpu"] == ["GPU 4", "GPU 5", "GPU 6", "GPU 7"]
    assert one["nvme"] == ["nvme1"]
    assert one["hugepages"] == {"1048576kB": {"nr": 2, "free": 1}}
    assert next(iter(facts["nearest"]["GPU 0"].items())) == ("enp16s0", "PIX")
    assert facts["nearest"]["GPU 7"]["nvme0"] == "SYS"


def test_gpus_are_numbered_as_nvml_does_not_as_pci_does(tmp_path: Path) -> None:
    facts = node_facts(FakeSys(eight_gpus(tmp_path)), nvml_of(EIGHT[::-1]))
    assert facts["nodes"][0]["gpu"] == ["GPU 7", "GPU 6", "GPU 5", "GPU 4"]


def test_without_nvml_gpus_are_numbered_by_address(tmp_path: Path) -> None:
    facts = node_facts(FakeSys(one_node(tmp_path)))
    assert is_skipped(facts["gpu"])
    assert facts["nodes"][0]["gpu"] == ["GPU 0", "GPU 1"]


def test_an_empty_folder_is_a_box_that_tells_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    facts = node_facts(FakeSys(tmp_path))
    assert facts["nodes"] == facts["devices"] == []
    failed = [name for name, value in facts.items() if is_skipped(value) and "probe failed" in value["skipped"]]
    assert failed == []


def test_a_probe_that_breaks_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(sys: Any) -> None:
        raise ValueError("an odd box")

    monkeypatch.setattr(module, "disk_facts", broken)
    facts = node_facts(FakeSys(eight_gpus(tmp_path)))
    assert facts["disks"]["skipped"] == "the probe failed: ValueError: an odd box"
    assert len(facts["nics"]) == 8


def test_this_box() -> None:
    facts = node_facts(LiveSys())
    assert facts["nodes"]
    assert sum(node["memory_bytes"] for node in facts["nodes"]) > 0
    failed = [name for name, value in facts.items() if is_skipped(value) and "probe failed" in value["skipped"]]
    assert failed == []


def test_a_place_that_is_no_box(tmp_path: Path) -> None:
    for place in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError, match="no copy of a box"):
            opened(place)


@pytest.mark.parametrize("name", BOXES)
def test_every_made_up_box_has_facts_a_screen_and_a_picture(name: str, tmp_path: Path) -> None:
    facts = node_facts(BOXES[name](tmp_path))
    failed = [key for key, value in facts.items() if is_skipped(value) and "probe failed" in value["skipped"]]
    assert failed == []
    assert box_parts(facts)
    ElementTree.fromstring(topology_svg(facts))
