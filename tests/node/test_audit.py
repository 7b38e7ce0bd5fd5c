"""Whole boxes, looked at as somebody who runs engines would."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.node.audit import audit
from redline.node.judge import Judged
from redline.node.tunables.table import TUNABLES
from redline.node.tunables.tunable import PROFILES, Profile
from tests.node.fake_boxes import BOXES, built


def states(name: str, *only: str, profile: Profile = "latency") -> dict[str, Judged]:
    """The first judgement of each row."""
    found: dict[str, Judged] = {}
    for judged in audit(built(name), profile, only):
        found.setdefault(judged.tunable.id, judged)
    return found


def test_every_row_answers_on_every_box() -> None:
    for name in BOXES:
        assert list(states(name)) == [row.id for row in TUNABLES]


def test_nothing_is_written(tmp_path: Path) -> None:
    box = BOXES["epyc_8gpu"](tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for profile in PROFILES:
        audit(box, profile)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_tuned_host_has_next_to_nothing_to_do() -> None:
    found = states("h200_host")
    left = {id_: judged.state for id_, judged in found.items() if judged.state not in ("ok", "inert", "not applicable")}
    assert left == {"blk.read_ahead": "overridden"}
    assert found["blk.read_ahead"].owner == "/etc/udev/rules.d/99-disks.rules"
    assert found["vm.dirty_ratio"].state == "not applicable"
    assert found["vm.dirty_bytes"].state == "ok"
    assert found["vm.swappiness"].state == "inert", "no swap: the late file does not matter either"


def test_a_careless_host() -> None:
    found = states("epyc_8gpu")
    high = {id_ for id_, judged in found.items() if judged.state == "drift" and judged.tunable.severity == "high"}
    expected = {"cpu.quota", "pcie.acs", "gpu.slowdown", "gpu.xid", "mem.dev_shm", "vm.overcommit_memory"}
    assert expected <= high
    assert found["cpu.cores_for_engine"].want is not None
    assert found["cpu.cores_for_engine"].want.written == "10"
    assert (found["cpu.governor"].state, found["cpu.governor"].owner) == ("overridden", "tuned")
    assert (found["irq.nic"].state, found["irq.nic"].owner) == ("overridden", "irqbalance")


def test_in_a_pod_the_host_must_do_it() -> None:
    found = states("kubernetes_pod")
    assert (found["vm.max_map_count"].state, found["thp.enabled"].state) == ("blocked", "blocked")
    assert "set it on the host" in found["vm.max_map_count"].why
    assert found["boot.debug"].state in ("ok", "not applicable")
    quota, cores = found["cpu.quota"], found["cpu.cores_for_engine"]
    assert (quota.state, quota.value) == ("drift", "400000"), "the pod's own specification can change that"
    assert cores.value == "4"


def test_in_a_virtual_machine_what_the_hypervisor_does_does_not_apply() -> None:
    found = states("cloud_vm")
    assert {found[id_].state for id_ in ("cpu.governor", "cpu.epp", "pcie.acs", "pcie.iommu")} == {"not applicable"}
    assert found["net.rps"].state == "drift", "one queue, and the packet budget runs out"


def test_arm_has_no_energy_preference() -> None:
    found = states("grace")
    assert (found["cpu.epp"].state, found["cpu.governor"].state) == ("not applicable", "drift")
    assert found["cpu.clocksource"].state == "ok"


def test_half_the_lanes_of_a_gpu() -> None:
    found = states("l40s")["gpu.pcie_width"]
    assert (found.state, found.value, found.want and found.want.written) == ("drift", "8", "16")


def test_an_idle_link_is_unknown_rather_than_slow(tmp_path: Path) -> None:
    box = BOXES["xeon_a100"](tmp_path)
    box.box.commands = {
        key: (rc, out.replace(", 5, 5, P0", ", 1, 5, P8")) for key, (rc, out) in box.box.commands.items()
    }
    found = audit(box, "latency", ["gpu.pcie_generation"])[0]
    assert found.state == "unknown"
    assert "under load" in found.why


def test_the_recorded_microvm() -> None:
    found = states("microvm")
    assert found["vm.swappiness"].state == "inert"
    assert found["cpu.governor"].state == "not applicable"
    assert found["blk.scheduler"].state == "ok"
    assert found["boot.cgroup"].state == "blocked"
    assert found["vm.max_map_count"].state == "drift"


def test_only_some() -> None:
    assert set(states("microvm", "vm.swappiness", "thp")) == {
        "vm.swappiness",
        "thp.enabled",
        "thp.defrag",
        "thp.khugepaged_defrag",
    }
    assert {judged.tunable.group for judged in states("microvm", "boot").values()} == {"boot"}
    with pytest.raises(UsageError, match="swapiness"):
        states("microvm", "vm.swapiness")
