from __future__ import annotations

import os
from pathlib import Path

from redline.node.cpu import cpu_facts
from redline.node.tree import is_skipped
from tests.node.boxes import plant, two_sockets


def test_two_sockets_with_smt(tmp_path: Path) -> None:
    cpu = cpu_facts(two_sockets(tmp_path))
    assert (cpu["sockets"], cpu["cores"], cpu["threads"], cpu["smt"]) == (2, 4, 8, "on")
    assert cpu["model"] == "AMD EPYC 9555 64-Core Processor"
    assert cpu["features"] == ["avx2", "fma", "avx512f", "avx512_bf16"]
    assert [node["cpus"] for node in cpu["numa_nodes"]] == ["0-1,4-5", "2-3,6-7"]
    assert cpu["numa_nodes"][1]["memory_bytes"] == 500_000 * 1024
    assert cpu["usable_cores"] == 8


def test_policies_that_differ_are_all_named(tmp_path: Path) -> None:
    frequency = cpu_facts(two_sockets(tmp_path))["frequency"]
    assert frequency["governor"] == "performance / powersave"
    assert frequency["energy_preference"] == "performance"
    assert (frequency["min_mhz"], frequency["max_mhz"], frequency["policies"]) == (600, 4400, 8)
    assert frequency["boost"] is None


def test_affinity_and_quota_leave_less(tmp_path: Path) -> None:
    root = two_sockets(tmp_path)
    plant(root, {"proc/self/status": "Cpus_allowed_list:\t2-5\n"})
    cpu = cpu_facts(root)
    assert (cpu["affinity"], cpu["usable_cores"], cpu["quota_cores"]) == ("2-5", 4, None)
    plant(root, {"sys/fs/cgroup/user.slice/cpu.max": "150000 100000"})
    cpu = cpu_facts(root)
    assert (cpu["usable_cores"], cpu["quota_cores"]) == (1.5, 1.5)


def test_a_box_that_tells_nothing(tmp_path: Path) -> None:
    cpu = cpu_facts(tmp_path)
    assert is_skipped(cpu["frequency"])
    assert is_skipped(cpu["microcode"])
    assert cpu["usable_cores"] >= 1
    assert cpu["numa_nodes"] == []


def test_against_the_affinity_of_this_process() -> None:
    cpu = cpu_facts()
    assert cpu["usable_cores"] <= len(os.sched_getaffinity(0))
    assert cpu["cores"] <= cpu["threads"]
