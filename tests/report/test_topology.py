from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from redline.node.box import node_facts
from redline.node.fake import FakeSys
from redline.node.tree import Fact
from redline.report.topology import TILE_W, topology_svg
from tests.node.boxes import plant
from tests.node.gpu_boxes import EIGHT, eight_gpus, nvml_of, one_node

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Fact:
    return node_facts(FakeSys(eight_gpus(tmp_path_factory.mktemp("eight"))), nvml_of(EIGHT))


def words(svg: str, kind: str = "") -> list[str]:
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return [text.text or "" for text in texts if not kind or text.get("class") == kind]


def test_everything_that_hangs_on_two_nodes_is_drawn(eight: Fact) -> None:
    said = words(topology_svg(eight))
    assert [word for word in said if word.startswith("node ")] == ["node 0", "node 1"]
    assert [f"GPU {index}" for index in range(8)] == [word for word in said if re.fullmatch(r"GPU \d", word)]
    assert {"nvme0", "nvme1", "enp16s0", "400 Gbit/s", "H200", "PCIe 5 ×16", "3.8 TB", "32"} <= set(said)
    assert "NVLink through NVSwitch · 8 GPUs · 18 links each" in said


def test_only_the_narrow_link_is_an_alarm(eight: Fact) -> None:
    assert words(topology_svg(eight), "alarm") == ["PCIe 5 ×8 of ×16"]


def test_nothing_lies_outside_or_on_something_else(eight: Fact) -> None:
    root = ElementTree.fromstring(topology_svg(eight))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    tiles = []
    for box in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(box.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert x >= 0 <= y
        assert x + w <= width
        assert y + h <= height
        if box.get("class") == "tile":
            tiles.append((x, y, w, h))
    assert len(tiles) == 18
    for at, (x, y, w, h) in enumerate(tiles):
        for left, top, wide, high in tiles[at + 1 :]:
            assert x + w <= left or left + wide <= x or y + h <= top or top + high <= y


def test_long_names_are_cut(tmp_path: Path) -> None:
    root = eight_gpus(tmp_path)
    plant(root, {"sys/devices/system/node/node0/cpulist": ",".join(str(cpu) for cpu in range(0, 512, 2))})
    svg = topology_svg(
        node_facts(FakeSys(root), nvml_of(EIGHT, DeviceGetName="NVIDIA RTX PRO 6000 Blackwell Server Edition"))
    )
    assert max(len(word) * 6.2 for word in words(svg, "small") if word.startswith("RTX")) <= TILE_W
    assert any(word.startswith("CPUs 0,2,4") and word.endswith("…") for word in words(svg))


def test_one_node_without_nvml_and_a_slot_that_is_too_slow(tmp_path: Path) -> None:
    svg = topology_svg(node_facts(FakeSys(one_node(tmp_path))))
    assert words(svg, "title") == ["2 GPUs · 1 NUMA node"]
    assert words(svg, "alarm") == ["slot: PCIe 5 of 6"]
    assert not [word for word in words(svg) if "NVLink" in word or word == "distance"]


def test_devices_without_a_node_are_shown_and_named_so(tmp_path: Path) -> None:
    root = eight_gpus(tmp_path)
    plant(root, {"sys/bus/pci/devices/0000:11:00.0/numa_node": "-1\n"})
    assert "node not told" in words(topology_svg(node_facts(FakeSys(root))))


def test_a_box_that_tells_nothing(tmp_path: Path) -> None:
    assert words(topology_svg(node_facts(FakeSys(tmp_path))), "name") == ["the box"]


def test_it_follows_light_and_dark(eight: Fact) -> None:
    svg = topology_svg(eight)
    light, dark = svg.split("@media (prefers-color-scheme:dark)")
    colours = [
        re.findall(r"fill:(#\w+)", part.partition("</style>")[0].rpartition(".ground{")[2]) for part in (light, dark)
    ]
    assert len(colours[0]) == len(colours[1]) > 5
    assert not set(colours[0]) & set(colours[1])
