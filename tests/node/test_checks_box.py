from __future__ import annotations

import resource
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from redline.node import checks_box as box
from redline.node.cpu import cpu_facts
from redline.node.gpu import gpu_facts
from redline.node.kernel import load_facts
from redline.node.memory import memory_facts
from redline.node.tree import skipped
from tests.node.boxes import FakeNvml, plant, process, two_sockets


def test_no_gpu_is_missing_and_says_how_to_get_one() -> None:
    check = box.check_gpu(skipped("no NVIDIA driver on this box", "a box with one"))
    assert (check.state, check.how) == ("missing", "a box with one")


def test_a_healthy_gpu() -> None:
    check = box.check_gpu(gpu_facts(FakeNvml()))
    assert check.state == "ok"
    assert "NVIDIA H200" in check.found
    assert "58 billion" in check.meaning


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DeviceGetComputeRunningProcesses": [process(1, 2), process(3, 4)]}, "2 other processes"),
        ({"DeviceGetCurrPcieLinkWidth": 8}, "×8 of ×16"),
        ({"DeviceGetEnforcedPowerLimit": 450_000}, "power limit 450 W, by default 700 W"),
        ({"DeviceGetRemappedRows": (0, 1, 1, 0)}, "memory rows"),
        ({"DeviceGetCurrentClocksEventReasons": 0x48}, "hardware-slowdown"),
    ],
)
def test_what_makes_a_gpus_numbers_doubtful(changes: dict[str, Any], words: str) -> None:
    check = box.check_gpu(gpu_facts(FakeNvml(**changes)))
    assert check.state == "warn"
    assert words in check.meaning
    assert check.how


def test_an_idle_link_at_a_low_generation_is_no_fault() -> None:
    assert box.check_gpu(gpu_facts(FakeNvml(DeviceGetCurrPcieLinkGeneration=1))).state == "ok"


def test_cores(tmp_path: Path) -> None:
    root = two_sockets(tmp_path)
    assert box.check_cores(cpu_facts(root)).state == "ok"
    plant(root, {"proc/self/status": "Cpus_allowed_list:\t0-3\n"})
    limited = box.check_cores(cpu_facts(root))
    assert (limited.state, "affinity to CPUs 0-3" in limited.meaning) == ("warn", True)
    plant(root, {"sys/fs/cgroup/user.slice/cpu.max": "150000 100000"})
    assert "share one core" in box.check_cores(cpu_facts(root)).meaning
    plant(root, {"sys/fs/cgroup/user.slice/cpu.max": "250000 100000"})
    assert "a CPU quota of 2.5" in box.check_cores(cpu_facts(root)).meaning


def test_cpu_arithmetic() -> None:
    assert box.check_features({"features": ["avx2", "avx512f", "amx_bf16"]}).state == "ok"
    assert "float32" in box.check_features({"features": ["avx2"]}).meaning
    assert "refuse" in box.check_features({"features": []}).meaning


def test_governor(tmp_path: Path) -> None:
    check = box.check_governor(cpu_facts(two_sockets(tmp_path)))
    assert (check.state, "powersave" in check.found, "scaling_governor" in check.how) == ("warn", True, True)
    plant(tmp_path, {"sys/devices/system/cpu/cpufreq/policy3/scaling_governor": "performance"})
    assert box.check_governor(cpu_facts(tmp_path)).state == "ok"
    assert box.check_governor({"frequency": skipped("none")}).state == "ok"


def test_other_load(tmp_path: Path) -> None:
    root = two_sockets(tmp_path)
    assert box.check_load(load_facts(root), cpu_facts(root)).state == "ok"
    plant(root, {"proc/loadavg": "6.0 1 1 1/1 1"})
    assert box.check_load(load_facts(root), cpu_facts(root)).state == "warn"


def test_memory(tmp_path: Path) -> None:
    root = two_sockets(tmp_path)
    assert "too little" in box.check_memory(memory_facts(root)).meaning
    plant(
        root,
        {"proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB\nSwapTotal: 9000000 kB\nSwapFree: 0 kB\n"},
    )
    assert "swapped out" in box.check_memory(memory_facts(root)).meaning
    plant(root, {"proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB\n"})
    check = box.check_memory(memory_facts(root))
    assert (check.state, "24 billion" in check.meaning) == ("ok", True)


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    check = box.check_disk(tmp_path / "not" / "yet" / "r.db")
    assert str(tmp_path) in check.found


def test_the_kernel_stamps_what_arrives_on_loopback() -> None:
    check = box.check_timestamps()
    assert check.state == "ok", check
    assert "µs" in check.found


def test_a_stamp_is_read_as_the_kernel_lays_it_out() -> None:
    data = struct.pack("@qq", 12, 34)
    assert box._stamp_ns((socket.SOL_SOCKET, box.SO_TIMESTAMPNS, data)) == 12_000_000_034
    assert box._stamp_ns((socket.SOL_SOCKET, 29, data)) is None


def test_no_stamps_and_refused_stamps_are_warnings() -> None:
    def refused() -> float:
        raise OSError("Protocol not available")

    assert box.check_timestamps(lambda: None).state == "warn"
    assert "Protocol not available" in box.check_timestamps(refused).found


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 524288))
    check = box.check_open_files()
    assert (check.state, check.how) == ("warn", "ulimit -n 65536")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (65536, resource.RLIM_INFINITY))
    assert box.check_open_files().state == "ok"


def test_shared_memory() -> None:
    assert box.check_shared_memory().state in ("ok", "warn")
