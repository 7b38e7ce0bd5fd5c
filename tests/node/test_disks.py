from __future__ import annotations

from pathlib import Path

from redline.node.disks import disk_facts
from redline.node.fake import FakeSys
from redline.node.live import LiveSys
from tests.node.boxes import plant
from tests.node.gpu_boxes import eight_gpus


def test_disks_with_their_node_and_scheduler_but_without_serial_numbers(tmp_path: Path) -> None:
    plant(eight_gpus(tmp_path), {"sys/block/loop0/size": "8\n", "sys/block/md0/size": "16\n"})
    disks = {disk["name"]: disk for disk in disk_facts(FakeSys(tmp_path))}
    assert list(disks) == ["md0", "nvme0n1", "nvme1n1"]
    nvme = disks["nvme1n1"]
    assert (nvme["node"], nvme["scheduler"], nvme["bytes"]) == (1, "none", 7_501_476_528 * 512)
    assert nvme["schedulers"] == ["none", "mq-deadline", "kyber"]
    assert "S6XYZ123456789" not in str(disks)
    assert disks["md0"]["kind"] == "raid"


def test_this_box_has_a_disk_or_none_but_answers() -> None:
    assert all(disk["bytes"] >= 0 for disk in disk_facts(LiveSys()))
