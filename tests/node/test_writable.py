from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.fake import FakeSys
from redline.node.writable import has_capability, in_container, is_virtual, no_boot_loader, readonly_mount
from tests.node.boxes import plant

MOUNTS = """proc /proc proc rw 0 0
proc /proc/sys proc ro,nosuid 0 0
proc /proc/sys/net proc rw 0 0
/dev/vda / ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/proc/sys/vm/swappiness", "/proc/sys"),
        ("/proc/sys", "/proc/sys"),
        ("/proc/sys/net/core/somaxconn", ""),
        ("/proc/system", ""),
        ("/etc/fstab", ""),
    ],
)
def test_the_innermost_mount_decides(tmp_path: Path, path: str, mount: str) -> None:
    assert readonly_mount(FakeSys(plant(tmp_path, {"proc/self/mounts": MOUNTS})), path) == mount


def test_a_read_only_root(tmp_path: Path) -> None:
    assert readonly_mount(FakeSys(plant(tmp_path, {"proc/self/mounts": "x / squashfs ro 0 0\n"})), "/etc/x") == "/"


@pytest.mark.parametrize(("effective", "has"), [("000001ffffffffff", True), ("000001fffeffffff", False)])
def test_capabilities(tmp_path: Path, effective: str, has: bool) -> None:
    box = FakeSys(plant(tmp_path, {"proc/self/status": f"CapEff:\t{effective}\n"}))
    assert has_capability(box, "SYS_RESOURCE") is has


def test_a_virtual_machine_made_from_a_container_image_is_no_container(tmp_path: Path) -> None:
    image = {".dockerenv": ""}
    inside = FakeSys(plant(tmp_path / "a", image | {"proc/self/mounts": "overlay / overlay rw 0 0\n"}))
    machine = FakeSys(plant(tmp_path / "b", image | {"proc/self/mounts": "/dev/vda / ext4 rw 0 0\n"}))
    assert (in_container(inside), in_container(machine)) == ("docker", "")


def test_boot_loaders(tmp_path: Path) -> None:
    assert "host" in no_boot_loader(FakeSys(plant(tmp_path / "a", {"run/.containerenv": "", "etc/default/grub": ""})))
    assert no_boot_loader(FakeSys(plant(tmp_path / "b", {"etc/default/grub": ""}))) == ""
    assert "no boot loader" in no_boot_loader(FakeSys(plant(tmp_path / "c", {"etc/fstab": ""})))


def test_virtual(tmp_path: Path) -> None:
    assert is_virtual(FakeSys(plant(tmp_path / "a", {"proc/cpuinfo": "flags\t: fpu hypervisor\n"})))
    assert not is_virtual(FakeSys(plant(tmp_path / "b", {"proc/cpuinfo": "flags\t: fpu hypervisorless\n"})))
