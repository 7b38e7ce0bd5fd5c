from __future__ import annotations

import resource
from pathlib import Path

import pytest

from redline.node.kernel import box_hash, kernel_facts, limit_facts, load_facts, virtualisation
from redline.node.tree import is_skipped
from tests.node.boxes import plant, two_sockets


def test_kernel_and_distribution(tmp_path: Path) -> None:
    kernel = kernel_facts(two_sockets(tmp_path))
    assert kernel["release"] == "6.8.0-50-generic"
    assert kernel["distribution"] == "Ubuntu 24.04.1 LTS"
    assert kernel["preemption"] == "PREEMPT_DYNAMIC"
    assert kernel["clocksource"] == "tsc"
    assert kernel["mitigations_off"]


def test_the_command_line_without_disk_ids_and_without_what_was_meant_for_init(tmp_path: Path) -> None:
    cmdline = kernel_facts(two_sockets(tmp_path))["cmdline"]
    assert cmdline == "BOOT_IMAGE=/vmlinuz root=UUID=... quiet mitigations=off"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {"hypervisor": "", "container": ""}),
        ({".dockerenv": ""}, {"hypervisor": "", "container": "docker"}),
        ({"run/.containerenv": ""}, {"hypervisor": "", "container": "podman"}),
        ({"proc/1/cgroup": "0::/kubepods/besteffort/pod1"}, {"hypervisor": "", "container": "kubernetes"}),
        ({"proc/1/environ": "A=1\0container=lxc\0"}, {"hypervisor": "", "container": "lxc"}),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, {"hypervisor": "kvm", "container": ""}),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2\n"}, {"hypervisor": "kvm (Amazon EC2)", "container": ""}),
        ({"proc/sys/kernel/osrelease": "5.15.90-microsoft-standard-WSL2"}, {"hypervisor": "", "container": "wsl"}),
    ],
)
def test_what_lies_beneath_and_around(tmp_path: Path, files: dict[str, str], expected: dict[str, str]) -> None:
    assert virtualisation(plant(tmp_path, files)) == expected


def test_a_hypervisor_that_only_the_cpu_tells_of(tmp_path: Path) -> None:
    root = plant(tmp_path, {"proc/cpuinfo": "flags\t: fpu hypervisor\n", "proc/cmdline": "quiet"})
    assert "some" in virtualisation(root)["hypervisor"]


def test_load(tmp_path: Path) -> None:
    load = load_facts(two_sockets(tmp_path))
    assert load["loadavg"] == [0.5, 0.4, 0.3]
    assert load["pressure"] == {"cpu_some_avg10_percent": 1.5}
    assert is_skipped(load_facts(tmp_path / "other")["pressure"])


def test_limits() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limit_facts()["open_files"][0] == soft


def test_the_box_is_named_by_a_hash_that_stays(tmp_path: Path) -> None:
    root = two_sockets(tmp_path)
    name = box_hash(root)
    assert len(name) == 12
    assert int(name, 16) >= 0
    assert box_hash(root) == name
    plant(root, {"etc/machine-id": "another"})
    assert box_hash(root) != name
