from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from redline.node.fake import Box, FakeSys
from redline.node.live import LiveSys
from redline.node.tunables.table import TUNABLES
from redline.observe.signals import BY_NAME, Reading, SignalWatch, listener_pids, moved, read, remote_share

PID = 77
FILES = {
    "/proc/vmstat": "compact_stall 7\nallocstall_normal 5\nallocstall_movable 6\nthp_fault_alloc 3\nnr_dirty 10",
    "/proc/stat": "cpu 1 0 1 1 0 0 40 0\ncpu0 1 0 1 1 0 0 20 0\ncpu1 1 0 1 1 0 0 20 0\nintr 500 1 2\nctxt 900",
    "/proc/net/softnet_stat": "00000010 00000002 0000000a\n00000010 00000001 00000001",
    "/proc/net/netstat": "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 4 6\nIpExt: A\nIpExt: 1",
    "/proc/meminfo": "HugePages_Free: 12",
    "/proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000000\nfull avg10=0.00 total=0",
    "/sys/fs/cgroup/cpu.stat": "usage_usec 1\nnr_throttled 9",
    "/sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "2000000",
    "/sys/devices/system/cpu/cpufreq/policy1/scaling_cur_freq": "3000000",
    "/sys/devices/system/node/node0/cpulist": "0-3",
    "/sys/devices/system/node/node1/cpulist": "4-7",
    f"/proc/{PID}/status": "Cpus_allowed_list:\t4-7",
    f"/proc/{PID}/numa_maps": "7f00 default anon=100 N0=25 N1=75 kernelpagesize_kB=4\n7f01 default",
    f"/proc/{PID}/task/77/schedstat": "5 8000000 3",
    f"/proc/{PID}/task/77/status": "voluntary_ctxt_switches: 30\nnonvoluntary_ctxt_switches: 12",
}


@pytest.fixture
def box(tmp_path: Path) -> FakeSys:
    for path, content in FILES.items():
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content + "\n")
    return FakeSys(tmp_path, Box())


def test_every_file_is_read_in_its_own_unit(box: FakeSys) -> None:
    found = read(box, [PID])
    assert found.values == {
        "compact_stall": 7, "allocstall": 11, "thp_faults": 3, "dirty_kib": 40, "switches": 900, "interrupts": 500,
        "softirq_share": 20, "softnet_dropped": 3, "time_squeeze": 11, "listen_overflows": 4, "listen_drops": 6,
        "free_hugepages": 12, "nr_throttled": 9, "psi": 500, "cpu_mhz": 2500, "remote_pages": 25,
    }  # fmt: skip
    assert found.threads == {77: (8000000, 42)}


def test_a_box_that_tells_nothing_gives_nothing(tmp_path: Path) -> None:
    found = read(FakeSys(tmp_path, Box()), [PID], [tmp_path / "no such file"])
    assert (found.values, found.threads) == ({}, {})


def test_counters_are_rates_gauges_are_means_and_threads_may_come_and_go() -> None:
    before = Reading(10.0, {"compact_stall": 5, "cpu_mhz": 1000, "psi": 1}, {1: (1e6, 10), 2: (9e6, 90)})
    after = Reading(12.0, {"compact_stall": 9, "cpu_mhz": 2000}, {1: (5e6, 30), 3: (2e6, 4)})
    assert moved(before, after) == {
        "compact_stall": 2, "cpu_mhz": 1500, "run_queue_ms": pytest.approx(3), "context_switches": 12,
    }  # fmt: skip


def test_pages_on_every_node_are_local_to_a_process_that_may_run_on_all(box: FakeSys, tmp_path: Path) -> None:
    (tmp_path / f"proc/{PID}/status").write_text("Cpus_allowed_list: 0-7\n")
    assert remote_share(box, [PID]) == 0
    assert remote_share(box, [PID + 1]) is None


def test_this_process_live() -> None:
    """Threads that want the CPU at the same time wait for one another, or at least switch."""

    def spin() -> None:
        for _ in range(200):
            os.sched_yield()

    with SignalWatch(LiveSys(), (os.getpid(),)) as watch:
        threads = [threading.Thread(target=spin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert watch.found["run_queue_ms"] >= 0
    assert watch.found["switches"] > 0
    assert watch.found["interrupts"] > 0


def test_the_listener_on_a_port_is_found_by_its_port() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert listener_pids(listening.getsockname()[1]) == (os.getpid(),)
    assert listener_pids(1) == ()


def test_what_rows_of_the_table_name_as_their_signal_is_mostly_read_here() -> None:
    """The others are metrics of a measurement themselves, or need a profiler or the GPU's library."""
    named = {tunable.signal for tunable in TUNABLES if tunable.write == "attribute" and tunable.signal}
    elsewhere = {
        "load_s", "ttft_ms", "wakeup_us", "clock_gettime_ns", "block_latency_us", "pcie_replays", "conntrack_drops",
        "remote_interrupts", "ksmd_cpu",
    }  # fmt: skip
    assert named - elsewhere <= set(BY_NAME)
