from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redline.node.box import node_facts
from redline.node.fake import FakeSys
from redline.node.live import LiveSys
from redline.report.box import Part, box_parts, size, skipped_facts
from tests.node.gpu_boxes import EIGHT, eight_gpus, nvml_of


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, Any]:
    widths = {f"gpu{index}": 8 if index == 5 else 16 for index in range(8)}
    rows = {"gpu2": (0, 1, 1, 0)}
    nvml = nvml_of(
        EIGHT,
        DeviceGetCurrPcieLinkWidth=widths.get,
        DeviceGetRemappedRows=lambda handle: rows.get(handle, (0, 0, 0, 0)),
        DeviceGetCurrentClocksEventReasons=lambda handle: 0x8 if handle == "gpu3" else 1,
    )
    return node_facts(FakeSys(eight_gpus(tmp_path)), nvml)


def named(parts: list[Part], title: str) -> Part:
    return next(part for part in parts if part.title.startswith(title))


def test_each_subject_once_on_one_screen(facts: dict[str, Any]) -> None:
    parts = box_parts(facts)
    assert [part.title.partition(" (")[0] for part in parts] == [
        "", "NUMA nodes", "GPUs", "Network", "Disks", "Software", "Not told by this box",
    ]  # fmt: skip
    assert sum(2 + len(part.lines) + len(part.rows) for part in parts) <= 75
    assert all(len(row) == len(part.columns) for part in parts for row in part.rows)


def test_what_is_wrong_with_a_gpu_is_marked(facts: dict[str, Any]) -> None:
    part = named(box_parts(facts), "GPUs")
    marked = {(row, part.columns[column]): part.rows[row][column] for row, column in part.bad}
    assert marked == {
        (5, "PCIe now"): "1×8 of 5×16",
        (2, "faults"): "row remapping pending",
        (3, "clock held by"): "hardware-slowdown",
    }


def test_nodes_with_huge_pages_and_devices(facts: dict[str, Any]) -> None:
    one = named(box_parts(facts), "NUMA nodes").rows[1]
    assert one[4] == "2×1 GB (1 free)"
    assert one[5].startswith("GPU 4, GPU 5, GPU 6, GPU 7 · ")


def test_a_stale_specification_is_said(facts: dict[str, Any]) -> None:
    assert dict(named(box_parts(facts), "Software").lines)["CDI"].endswith("stale: made for driver 570.1.2")


def test_what_is_missing_is_told_once_with_the_way_to_get_it() -> None:
    nics = [{"name": "eth0", "virtual": False, "speed": {"skipped": "no", "how": "up"}}]
    nics += [{"name": f"veth{number}", "virtual": True, "speed": {"skipped": "no", "how": "up"}} for number in range(3)]
    found = dict(skipped_facts({"gpu": {"skipped": "none", "how": "buy"}, "nics": nics}))
    assert list(found) == ["gpu", "nics.eth0.speed"]


def test_this_box() -> None:
    assert box_parts(node_facts(LiveSys()))[0].lines[0][0] == "box"


@pytest.mark.parametrize(("count", "said"), [(1.5e12, "1.5 TB"), (141e9, "141 GB"), (2048, "2.05 kB"), (None, "?")])
def test_sizes(count: float | None, said: str) -> None:
    assert size(count) == said
