"""The fake box behaves like Linux: each refusal and each change that the kernel makes by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.fake import Box, FakeSys
from redline.node.sys import SysFault
from tests.node.boxes import plant

VM = "/proc/sys/vm"
POLICY = "/sys/devices/system/cpu/cpufreq/policy0"
FILES = {
    "proc/sys/vm/dirty_ratio": "20\n",
    "proc/sys/vm/dirty_bytes": "0\n",
    "proc/sys/vm/swappiness": "60\n",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "proc/sys/net/core/rps_sock_flow_entries": "0\n",
    "proc/irq/44/smp_affinity_list": "0-7\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never\n",
    "sys/block/nvme0n1/queue/read_ahead_kb": "128\n",
    "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
    "sys/class/net/eth0/queues/rx-0/rps_cpus": "00000000,00000000\n",
    f"{POLICY[1:]}/scaling_governor": "powersave\n",
    f"{POLICY[1:]}/scaling_available_governors": "performance powersave\n",
    f"{POLICY[1:]}/energy_performance_preference": "balance_power\n",
    f"{POLICY[1:]}/energy_performance_available_preferences": "default performance balance_power\n",
}
THP = "/sys/kernel/mm/transparent_hugepage/defrag"
PAGES = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
RPS = "/sys/class/net/eth0/queues/rx-0/rps_cpus"


@pytest.fixture
def box(tmp_path: Path) -> FakeSys:
    return FakeSys(plant(tmp_path, FILES))


def refused(box: FakeSys, path: str, value: str) -> str:
    before = box.read(path) if box.exists(path) else b""
    with pytest.raises(SysFault) as caught:
        box.set_attribute(path, value.encode())
    assert (box.read(path) if box.exists(path) else b"") == before
    return caught.value.why


@pytest.mark.parametrize(
    ("path", "written", "read"),
    [
        (THP, "defer", "always [defer] defer+madvise madvise never\n"),
        (f"{VM}/swappiness", "10\n", "10\n"),
        ("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 16777216", "4096\t131072\t16777216\n"),
        ("/proc/sys/net/core/rps_sock_flow_entries", "30000", "32768\n"),
        ("/sys/block/nvme0n1/queue/read_ahead_kb", "4095", "4092\n"),
        ("/proc/irq/44/smp_affinity_list", "0,1,2,3,99", "0-3\n"),
        (RPS, "ff", "00000000,000000ff\n"),
        (PAGES, "1000", "1000\n"),
    ],
)
def test_what_reads_back(box: FakeSys, path: str, written: str, read: str) -> None:
    box.set_attribute(path, written.encode())
    assert box.read(path).decode() == read


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (THP, "sometimes", "invalid"),
        (f"{VM}/swappiness", "201", "invalid"),
        (f"{VM}/swappiness", "ten", "invalid"),
        (f"{VM}/dirty_bytes", "0", "invalid"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "60000 1024", "invalid"),
        (f"{POLICY}/scaling_governor", "ondemand", "invalid"),
        ("/proc/irq/44/smp_affinity_list", "64-70", "invalid"),
        (RPS, "zz", "invalid"),
        (f"{VM}/no_such_thing", "1", "absent"),
    ],
)
def test_what_is_refused(box: FakeSys, path: str, value: str, why: str) -> None:
    assert refused(box, path, value) == why


def test_bytes_and_ratio_zero_each_other_so_that_a_dump_is_no_way_back(box: FakeSys) -> None:
    box.set_attribute(f"{VM}/dirty_bytes", b"1048576")
    assert box.read(f"{VM}/dirty_ratio") == b"0\n"
    assert refused(box, f"{VM}/dirty_bytes", "0") == "invalid"
    box.set_attribute(f"{VM}/dirty_ratio", b"20")
    assert (box.read(f"{VM}/dirty_bytes"), box.read(f"{VM}/dirty_ratio")) == (b"0\n", b"20\n")


def test_the_performance_governor_holds_the_preference(box: FakeSys) -> None:
    box.set_attribute(f"{POLICY}/scaling_governor", b"performance")
    assert box.read(f"{POLICY}/energy_performance_preference") == b"performance\n"
    assert refused(box, f"{POLICY}/energy_performance_preference", "balance_power") == "busy"


@pytest.mark.parametrize(
    ("made", "path", "why"),
    [
        (Box(refuse={"/proc/irq/44/*": "EIO"}), "/proc/irq/44/smp_affinity_list", "io"),
        (Box(refuse={f"{VM}/*": "EPERM"}), f"{VM}/swappiness", "denied"),
        (Box(readonly=["/proc/sys"]), f"{VM}/swappiness", "readonly"),
        (Box(root=False), f"{VM}/swappiness", "denied"),
    ],
)
def test_a_box_that_refuses(tmp_path: Path, made: Box, path: str, why: str) -> None:
    box = FakeSys(plant(tmp_path, FILES), made)
    assert refused(box, path, "1") == why


def test_huge_pages_are_granted_in_part(tmp_path: Path) -> None:
    box = FakeSys(plant(tmp_path, FILES), Box(grants={PAGES: 300}))
    box.set_attribute(PAGES, b"1000")
    assert box.read(PAGES) == b"300\n"


def test_unreadable_files_and_recorded_commands(tmp_path: Path) -> None:
    Box(unreadable={f"{VM}/*": "EACCES"}, commands={"ss -l": (0, "LISTEN")}).save(plant(tmp_path, FILES))
    box = FakeSys(tmp_path)
    with pytest.raises(SysFault, match="denied"):
        box.read(f"{VM}/swappiness")
    assert box.run(["ss", "-l"]).out == "LISTEN"
    assert box.run(["rm", "-rf", "/"]).rc == 127


def test_absolute_links_stay_inside(tmp_path: Path) -> None:
    plant(tmp_path, {"etc/real": "inside\n"})
    (tmp_path / "etc/link").symlink_to("/etc/real")
    (tmp_path / "etc/out").symlink_to("/etc/hostname")
    box = FakeSys(tmp_path)
    assert box.read("/etc/link") == b"inside\n"
    assert box.link("/etc/link") == "/etc/real"
    with pytest.raises(SysFault, match="absent"):
        box.read("/etc/out")
