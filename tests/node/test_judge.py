"""The seven states, and the proofs that a value can have no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redline.node.fake import Box, FakeSys
from redline.node.judge import Judged, judge
from redline.node.tunables.table import BY_ID
from redline.node.tunables.tunable import Place, Profile
from tests.node.boxes import plant
from tests.node.fake_boxes import acs

SWAP = "Filename\tType\tSize\tUsed\tPriority\n/swap.img file 8388604 0 -2\n"
NO_SWAP = "Filename\tType\tSize\tUsed\tPriority\n"
ROOT = {"proc/self/status": "CapEff:\t000001ffffffffff\n"}


def judged(root: Path, id_: str, files: dict[str, str], profile: Profile = "latency", **box: Any) -> Judged:
    sys = FakeSys(plant(root, ROOT | files), Box(**box))
    row = BY_ID[id_]
    places = row.places(sys)
    assert places
    return judge(sys, row, places[0], profile)


def swappiness(root: Path, value: str, swaps: str = SWAP, **box: Any) -> Judged:
    files = {"proc/sys/vm/swappiness": f"{value}\n", "proc/swaps": swaps}
    return judged(root, "vm.swappiness", files, **box)


def test_ok_and_drift(tmp_path: Path) -> None:
    assert swappiness(tmp_path / "a", "10").state == "ok"
    assert swappiness(tmp_path / "b", "1").state == "ok"
    drift = swappiness(tmp_path / "c", "60")
    assert (drift.state, drift.value, drift.want and drift.want.written) == ("drift", "60", "10")


@pytest.mark.parametrize("value", ["10", "60"])
def test_swappiness_is_inert_without_swap(tmp_path: Path, value: str) -> None:
    found = swappiness(tmp_path, value, NO_SWAP)
    assert found.state == "inert"
    assert "no swap" in found.why


def test_a_read_only_mount_blocks(tmp_path: Path) -> None:
    mounts = {"proc/self/mounts": "proc /proc proc rw 0 0\nproc /proc/sys proc ro,nosuid 0 0\n"}
    files = {"proc/sys/vm/swappiness": "60\n", "proc/swaps": SWAP, **mounts}
    found = judged(tmp_path, "vm.swappiness", files)
    assert found.state == "blocked"
    assert "/proc/sys is mounted read-only" in found.why


def test_lockdown_blocks(tmp_path: Path) -> None:
    path = "/sys/kernel/debug/sched/preempt"
    files = {path[1:]: "(none) full\n", "sys/kernel/security/lockdown": "none [integrity] confidentiality\n"}
    found = judged(tmp_path / "a", "sched.preempt", files, unreadable={path: "EPERM"})
    assert (found.state, found.value) == ("blocked", None)
    assert "lockdown (integrity)" in found.why
    files["sys/kernel/security/lockdown"] = "[none] integrity confidentiality\n"
    assert judged(tmp_path / "b", "sched.preempt", files, unreadable={path: "EPERM"}).state == "unknown"


def test_power_profiles_daemon_sets_the_governor_back(tmp_path: Path) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    running = {"sys/fs/cgroup/system.slice/power-profiles-daemon.service/cgroup.procs": "9\n"}
    found = judged(tmp_path / "a", "cpu.governor", running | {f"{policy}/scaling_governor": "powersave\n"})
    assert (found.state, found.owner) == ("overridden", "power-profiles-daemon")
    right = judged(tmp_path / "b", "cpu.governor", running | {f"{policy}/scaling_governor": "performance\n"})
    assert right.state == "ok"


PCI = "sys/bus/pci/devices/0000:"


def gpus_below(port: str) -> dict[str, str]:
    gpus = {
        f"{PCI}0{n}:00.0/{name}": text
        for n in (1, 2)
        for name, text in (("class", "0x030200\n"), ("vendor", "0x10de\n"))
    }
    return gpus | {f"{PCI}60:00.0/class": "0x060400\n", f"{PCI}60:00.0/config": port}


def planted(root: Path, files: dict[str, str]) -> FakeSys:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode("latin-1"))
    return FakeSys(root)


def test_acs_is_judged_on_switches_not_on_root_ports(tmp_path: Path) -> None:
    row = BY_ID["pcie.acs"]
    states = {}
    for name, port in (("on", acs(0x1D)), ("off", acs(0x01)), ("root", acs(0x1D, port=4)), ("short", acs(0x1D)[:64])):
        sys = planted(tmp_path / name, gpus_below(port))
        states[name] = [judge(sys, row, place, "latency").state for place in row.places(sys)]
    assert states == {"on": ["drift"], "off": ["ok"], "root": [], "short": ["unknown"]}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, "4"),
        ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, "2"),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, "4"),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, "3"),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, "4"),
    ],
)
def test_a_quota_counts_as_so_many_cores(tmp_path: Path, files: dict[str, str], cores: str) -> None:
    """Eight threads of four cores, one GPU."""
    topology = "sys/devices/system/cpu"
    box = {f"{topology}/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n" for n in range(8)}
    found = judged(tmp_path, "cpu.cores_for_engine", box | files | {f"{topology}/online": "0-7\n", "dev/nvidia0": ""})
    assert (found.value, found.want and found.want.written) == (cores, "3")


def test_a_missing_capability_blocks(tmp_path: Path) -> None:
    files = {"sys/kernel/mm/ksm/run": "1\n", "proc/self/status": "CapEff:\t00000000a80425fb\n"}
    assert "CAP_SYS_ADMIN" in judged(tmp_path, "mem.ksm", files).why


def test_a_hard_limit_that_root_may_not_raise_blocks(tmp_path: Path) -> None:
    files = {
        "proc/self/limits": "Limit\nMax locked memory 8388608 8388608 bytes\n",
        "proc/self/status": "CapEff:\t000001fffeffffff\n",
        "sys/class/infiniband/mlx5_0/x": "",
    }
    found = judged(tmp_path, "limit.memlock", files)
    assert (found.state, found.value) == ("blocked", "8388608")
    assert "CAP_SYS_RESOURCE" in found.why


def test_boot_arguments_without_a_boot_loader_are_blocked(tmp_path: Path) -> None:
    found = judged(tmp_path, "boot.psi", {"proc/cmdline": "quiet\n"})
    assert found.state == "blocked"
    assert judged(tmp_path / "b", "boot.psi", {"proc/cmdline": "quiet\n", "etc/default/grub": ""}).state == "drift"


def test_what_cannot_be_read_is_unknown_and_never_ok(tmp_path: Path) -> None:
    found = swappiness(tmp_path, "10", unreadable={"/proc/sys/vm/swappiness": "EACCES"})
    assert (found.state, found.value) == ("unknown", None)
    assert "may not be read" in found.why


@pytest.mark.parametrize("value", ["", "many", "-"])
def test_a_value_that_makes_no_sense_is_unknown(tmp_path: Path, value: str) -> None:
    assert swappiness(tmp_path, value).state == "unknown"


def test_a_profile_without_opinion_does_not_apply(tmp_path: Path) -> None:
    files = {"proc/sys/kernel/timer_migration": "1\n"}
    assert judged(tmp_path / "a", "kernel.timer_migration", files, "throughput").state == "not applicable"
    assert judged(tmp_path / "b", "kernel.timer_migration", files).state == "drift"


def test_a_file_that_comes_last_overrides(tmp_path: Path) -> None:
    late = {"etc/sysctl.d/99-site.conf": "vm.swappiness=60\n", "proc/swaps": SWAP}
    found = judged(tmp_path / "a", "vm.swappiness", late | {"proc/sys/vm/swappiness": "60\n"})
    assert (found.state, found.owner) == ("overridden", "/etc/sysctl.d/99-site.conf")
    right_now = judged(tmp_path / "b", "vm.swappiness", late | {"proc/sys/vm/swappiness": "10\n"})
    assert right_now.state == "overridden"
    assert "until the next boot" in right_now.why


def test_a_file_that_comes_early_is_named_but_can_be_beaten(tmp_path: Path) -> None:
    files = {"usr/lib/sysctl.d/10-vendor.conf": "vm.swappiness=60\n", "proc/swaps": SWAP}
    found = judged(tmp_path, "vm.swappiness", files | {"proc/sys/vm/swappiness": "60\n"})
    assert (found.state, found.owner) == ("drift", "/usr/lib/sysctl.d/10-vendor.conf")


def test_a_daemon_overrides(tmp_path: Path) -> None:
    tuned = {
        "run/tuned/tuned.pid": "7\n",
        "proc/7/comm": "tuned\n",
        "etc/tuned/active_profile": "site\n",
        "etc/tuned/site/tuned.conf": "[main]\ninclude=balanced\n",
        "usr/lib/tuned/balanced/tuned.conf": "[sysctl]\nvm.swappiness = 60\n",
        "proc/sys/vm/swappiness": "10\n",
        "proc/swaps": SWAP,
    }
    yields = "etc/tuned/tuned-main.conf"
    found = judged(tmp_path / "a", "vm.swappiness", tuned | {yields: "daemon = 1\nreapply_sysctl = 0\n"})
    assert (found.state, found.owner) == ("overridden", "tuned")
    del tuned["proc/7/comm"]  # a stale pid file
    assert judged(tmp_path / "b", "vm.swappiness", tuned).state == "ok"


@pytest.mark.parametrize(
    ("files", "now", "state", "owner"),
    [
        ({}, "10", "overridden", "/usr/lib/tuned/site/tuned.conf"),  # until a file of redline's has the last word
        ({}, "60", "drift", "/usr/lib/tuned/site/tuned.conf"),
        ({"etc/sysctl.d/90-redline.conf": "vm.swappiness = 10\n"}, "10", "ok", "/etc/sysctl.d/90-redline.conf"),
        ({"usr/lib/sysctl.d/10.conf": "vm.swappiness = 10\n"}, "10", "overridden", "/usr/lib/tuned/site/tuned.conf"),
    ],
)
def test_tuned_yields_to_files_of_sysctl(
    tmp_path: Path, files: dict[str, str], now: str, state: str, owner: str
) -> None:
    """As TuneD does unless its reapply_sysctl is off."""
    tuned = {
        "sys/fs/cgroup/system.slice/tuned.service/cgroup.procs": "500\n",
        "etc/tuned/active_profile": "site\n",
        "usr/lib/tuned/site/tuned.conf": "[sysctl]\nvm.swappiness = 60\n",
        "proc/sys/vm/swappiness": f"{now}\n",
        "proc/swaps": SWAP,
    }
    found = judged(tmp_path, "vm.swappiness", tuned | files)
    assert (found.state, found.owner) == (state, owner)


# Proofs that a value can have no effect


def somaxconn(root: Path, value: int, listening: str, processes: str = "1 init\n", **links: str) -> Judged:
    files = {"proc/sys/net/core/somaxconn": f"{value}\n"}
    commands = {"ss -Hltn": (0, listening), "ps -eo pid=,args=": (0, processes)}
    return judged(root, "net.core.somaxconn", files, commands=commands, links=links)


def test_somaxconn_above_every_backlog_is_inert(tmp_path: Path) -> None:
    uvicorn = "LISTEN 0 2048 0.0.0.0:8000 0.0.0.0:*\n"
    found = somaxconn(tmp_path / "a", 4096, uvicorn)
    assert found.state == "inert"
    assert "2048" in found.why
    assert somaxconn(tmp_path / "b", 65535, uvicorn).state == "inert", "set right, and still of no use"


def test_somaxconn_that_cuts_a_backlog_is_drift(tmp_path: Path) -> None:
    assert somaxconn(tmp_path / "a", 4096, "LISTEN 0 4096 0.0.0.0:8000 0.0.0.0:*\n").state == "drift"
    assert somaxconn(tmp_path / "b", 4096, "").state == "drift", "no listener yet: nothing is proved"


def test_somaxconn_is_inert_for_an_engine_in_another_network_namespace(tmp_path: Path) -> None:
    links = {"/proc/self/ns/net": "net:[1]", "/proc/9/ns/net": "net:[2]"}
    wide = "LISTEN 0 4096 0.0.0.0:8000 0.0.0.0:*\n"
    found = somaxconn(tmp_path / "a", 4096, wide, "9 /usr/bin/python vllm serve x\n", **links)
    assert found.state == "inert"
    assert "another network namespace" in found.why
    links["/proc/9/ns/net"] = "net:[1]"
    assert somaxconn(tmp_path / "b", 4096, wide, "9 vllm serve x\n", **links).state == "drift"


def huge(root: Path, total: int, free: int) -> Judged:
    here = "sys/devices/system/node/node0/hugepages/hugepages-1048576kB"
    return judged(root, "hugepages.1g", {f"{here}/nr_hugepages": f"{total}\n", f"{here}/free_hugepages": f"{free}\n"})


def test_huge_pages_without_a_consumer_are_inert_and_their_cost_is_told(tmp_path: Path) -> None:
    found = huge(tmp_path / "a", 64, 64)
    assert found.state == "inert"
    assert "64.0 GiB" in found.why
    assert huge(tmp_path / "b", 64, 10).state == "drift", "in use in part: the free rest is too much"
    assert huge(tmp_path / "c", 64, 0).state == "ok"
    assert huge(tmp_path / "d", 0, 0).state == "ok"


def mtu(root: Path, frame: int, mean: int, packets: int = 1_000_000) -> Judged:
    here = "sys/class/net/eth0"
    files = {f"{here}/device/vendor": "x", f"{here}/operstate": "up\n", f"{here}/speed": "100000\n"}
    for way in ("rx", "tx"):
        files |= {
            f"{here}/statistics/{way}_packets": f"{packets}\n",
            f"{here}/statistics/{way}_bytes": f"{mean * packets}\n",
        }
    return judged(root, "net.mtu", files | {f"{here}/mtu": f"{frame}\n"})


def test_frame_size_is_inert_for_token_streams(tmp_path: Path) -> None:
    found = mtu(tmp_path / "a", 1500, 240)
    assert found.state == "inert"
    assert "240 bytes" in found.why
    assert mtu(tmp_path / "b", 9000, 240).state == "inert"
    assert mtu(tmp_path / "c", 1500, 1400).state == "drift", "full frames: a model is being pulled"
    assert mtu(tmp_path / "d", 1500, 240, packets=10).state == "drift", "too few packets to prove anything"


def disk(root: Path, name: str, schedulers: str, rotating: str = "0") -> Judged:
    here = f"sys/block/{name}"
    files = {
        f"{here}/size": "1000\n",
        f"{here}/queue/scheduler": schedulers,
        f"{here}/queue/rotational": f"{rotating}\n",
    }
    return judged(root, "blk.scheduler", files)


def test_none_on_nvme_is_the_default_already(tmp_path: Path) -> None:
    found = disk(tmp_path / "a", "nvme0n1", "[none] mq-deadline kyber\n")
    assert found.state == "inert"
    assert "kernel picks itself" in found.why
    assert disk(tmp_path / "b", "nvme0n1", "none [mq-deadline] kyber\n").state == "drift"
    assert disk(tmp_path / "c", "sda", "[none] mq-deadline bfq\n", rotating="1").state == "drift"
    assert disk(tmp_path / "d", "sda", "[mq-deadline] none\n", rotating="1").state == "ok"


def test_one_node_makes_numa_settings_inert(tmp_path: Path) -> None:
    files = {"proc/sys/kernel/numa_balancing": "1\n"}
    one = judged(tmp_path / "a", "kernel.numa_balancing", files | {"sys/devices/system/node/online": "0\n"})
    two = judged(tmp_path / "b", "kernel.numa_balancing", files | {"sys/devices/system/node/online": "0-1\n"})
    assert (one.state, two.state) == ("inert", "drift")


def test_a_fault_while_asking_whether_it_matters_does_not_hide_drift(tmp_path: Path) -> None:
    files = {"proc/sys/vm/swappiness": "60\n", "proc/swaps": SWAP}
    sys = FakeSys(plant(tmp_path, files))
    row = BY_ID["thp.defrag"]
    plant(tmp_path, {"sys/kernel/mm/transparent_hugepage/defrag": "[madvise] defer\n"})  # no `enabled` beside it
    found = judge(sys, row, Place("/sys/kernel/mm/transparent_hugepage/defrag"), "latency")
    assert found.state == "drift"
