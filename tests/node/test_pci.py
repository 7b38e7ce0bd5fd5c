from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.fake import FakeSys
from redline.node.pci import DEVICES, generation, node_of, pci_devices, relation
from tests.node.boxes import plant
from tests.node.gpu_boxes import eight_gpus, one_node


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        ("2.5 GT/s PCIe", 1),
        ("16.0 GT/s PCIe", 4),
        ("64.0 GT/s PCIe", 6),
        ("8 GT/s", 3),
        ("Unknown", None),
        (None, None),
    ],
)
def test_generation_of_a_speed(speed: str | None, expected: int | None) -> None:
    assert generation(speed) == expected


def test_gpus_cards_and_disks_with_their_nodes_and_links(tmp_path: Path) -> None:
    devices = pci_devices(FakeSys(eight_gpus(tmp_path)))
    assert [device.kind for device in devices].count("gpu") == 8
    assert {device.names: device.node for device in devices if device.kind == "nvme"} == {("nvme0",): 0, ("nvme1",): 1}
    narrow = [device for device in devices if device.link.narrow]
    assert [(device.address, device.link.width, device.link.width_max) for device in narrow] == [
        ("0000:61:00.0", 8, 16)
    ]
    assert narrow[0].path == ("0000:60:01.0", "0000:61:00.0")


def test_a_slot_that_is_slower_than_its_card(tmp_path: Path) -> None:
    slow = [device.address for device in pci_devices(FakeSys(one_node(tmp_path))) if device.link.slow_slot]
    assert slow == ["0000:02:00.0"]


def test_minus_one_is_the_only_node_where_there_is_one_and_unknown_where_there_are_two(tmp_path: Path) -> None:
    one = FakeSys(one_node(tmp_path / "one"))
    assert node_of(one, f"{DEVICES}/0000:01:00.0") == 0
    root = eight_gpus(tmp_path / "two")
    plant(root, {"sys/bus/pci/devices/0000:11:00.0/numa_node": "-1\n"})
    assert node_of(FakeSys(root), f"{DEVICES}/0000:11:00.0") is None


def test_how_far_a_gpu_is_from_network_cards(tmp_path: Path) -> None:
    by_name = {device.names or device.address: device for device in pci_devices(FakeSys(eight_gpus(tmp_path)))}
    gpu = by_name["0000:11:00.0"]
    assert relation(gpu, by_name["enp16s0",]) == "PIX"
    assert relation(gpu, by_name["enp32s0",]) == "NODE"
    assert relation(gpu, by_name["enp128s0",]) == "SYS"


def test_cards_of_management_controllers_are_no_gpus(tmp_path: Path) -> None:
    folder = "sys/bus/pci/devices/0000:03:00.0"
    plant(tmp_path, {f"{folder}/class": "0x030000\n", f"{folder}/vendor": "0x1a03\n"})
    assert pci_devices(FakeSys(tmp_path)) == []
