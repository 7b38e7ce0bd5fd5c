from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.cgroup import cpu_limit, memory_limit, memory_used, throttled_s
from tests.node.boxes import plant

V1_NONE = str(0x7FFFFFFFFFFFF000)


def test_v2_takes_the_tightest_of_all_levels(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kubepods/pod1/box\n",
            "sys/fs/cgroup/kubepods/cpu.max": "1600000 100000",
            "sys/fs/cgroup/kubepods/pod1/cpu.max": "250000 100000",
            "sys/fs/cgroup/kubepods/pod1/box/cpu.max": "max 100000",
            "sys/fs/cgroup/kubepods/pod1/memory.max": "4000000000",
            "sys/fs/cgroup/kubepods/pod1/memory.current": "3000000000",
            "sys/fs/cgroup/kubepods/pod1/memory.stat": "anon 1\ninactive_file 500000000\n",
            "sys/fs/cgroup/kubepods/pod1/box/memory.max": "max",
            "sys/fs/cgroup/kubepods/pod1/box/cpu.stat": "usage_usec 5\nthrottled_usec 2500000\n",
        },
    )
    assert cpu_limit(tmp_path) == 2.5
    assert memory_limit(tmp_path) == 4_000_000_000
    assert memory_used(tmp_path) == 2_500_000_000
    assert throttled_s(tmp_path) == 2.5


def test_v2_inside_a_container_namespace(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"})
    assert cpu_limit(tmp_path) == 0.5


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_v1_in_a_container_that_sees_the_path_of_its_host(tmp_path: Path, mount: str) -> None:
    plant(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": "300000",
            f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": "100000",
            f"sys/fs/cgroup/{mount}/cpu.stat": "nr_periods 1\nthrottled_time 1500000000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "8000000000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000000",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 250000000\n",
            "sys/fs/cgroup/unified/cgroup.procs": "",
        },
    )
    assert cpu_limit(tmp_path) == 3.0
    assert memory_limit(tmp_path) == 8_000_000_000
    assert memory_used(tmp_path) == 750_000_000
    assert throttled_s(tmp_path) == 1.5


def test_no_limits(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_NONE,
        },
    )
    assert cpu_limit(tmp_path) is None
    assert memory_limit(tmp_path) is None
    assert memory_used(tmp_path) is None
    assert cpu_limit(tmp_path / "nothing at all") is None


def test_a_path_that_leaves_the_mount_is_not_followed(tmp_path: Path) -> None:
    plant(tmp_path, {"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "100000 100000"})
    assert cpu_limit(tmp_path) == 1.0
