"""Whole boxes for the tests of the node: seven made up (synthetic), one recorded (`recorded_microvm.json`).

`untuned` ones have everything wrong that can be, `tuned` ones everything right, so that each row is seen both ways.
"""

from __future__ import annotations

import atexit
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from redline.node.fake import Box, FakeSys
from redline.node.tree import short_list
from redline.node.tunables.find import SMI, SMI_LATER

SYSCTLS = {
    # as Ubuntu and Debian come
    "vm.swappiness": "60",
    "vm.dirty_ratio": "20",
    "vm.dirty_background_ratio": "10",
    "vm.dirty_bytes": "0",
    "vm.dirty_background_bytes": "0",
    "vm.min_free_kbytes": "67584",
    "vm.max_map_count": "65530",
    "vm.overcommit_memory": "0",
    "vm.compaction_proactiveness": "20",
    "vm.vfs_cache_pressure": "100",
    "vm.stat_interval": "1",
    "vm.zone_reclaim_mode": "0",
    "kernel.numa_balancing": "1",
    "kernel.nmi_watchdog": "1",
    "kernel.timer_migration": "1",
    "kernel.sched_autogroup_enabled": "1",
    "kernel.pid_max": "32768",
    "kernel.threads-max": "192730",
    "fs.file-max": "9223372036854775807",
    "fs.file-nr": "1600\t0\t9223372036854775807",
    "fs.nr_open": "1048576",
    "fs.aio-max-nr": "65536",
    "fs.aio-nr": "0",
    "fs.inotify.max_user_instances": "128",
    "net.core.somaxconn": "4096",
    "net.core.rmem_max": "212992",
    "net.core.wmem_max": "212992",
    "net.core.busy_poll": "0",
    "net.core.busy_read": "0",
    "net.core.netdev_budget": "300",
    "net.core.netdev_max_backlog": "1000",
    "net.core.rps_sock_flow_entries": "0",
    "net.ipv4.tcp_max_syn_backlog": "4096",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.tcp_slow_start_after_idle": "1",
    "net.ipv4.tcp_notsent_lowat": "4294967295",
    "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
    "net.ipv4.tcp_wmem": "4096\t16384\t4194304",
    "net.ipv4.ip_local_port_range": "32768\t60999",
    "net.ipv4.tcp_tw_reuse": "2",
    "net.ipv4.tcp_sack": "1",
    "net.ipv4.tcp_window_scaling": "1",
    "net.ipv4.tcp_mtu_probing": "0",
    "net.ipv4.neigh.default.gc_thresh3": "1024",
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_count": "220000",
}
BROKEN = {
    "vm.overcommit_memory": "2",
    "vm.vfs_cache_pressure": "200",
    "vm.zone_reclaim_mode": "1",
    "net.core.busy_poll": "50",
    "net.core.busy_read": "50",
    "net.ipv4.tcp_syncookies": "0",
    "net.ipv4.tcp_tw_reuse": "0",
    "net.ipv4.tcp_sack": "0",
    "net.ipv4.tcp_window_scaling": "0",
    "net.netfilter.nf_conntrack_max": "65536",
    "net.netfilter.nf_conntrack_count": "60000",
    "fs.file-max": "65536",
    "fs.file-nr": "40000\t0\t65536",
    "fs.nr_open": "65536",
    "fs.aio-nr": "60000",
    "kernel.threads-max": "65536",
}
TUNED = {
    "vm.swappiness": "10",
    "vm.dirty_ratio": "10",
    "vm.dirty_background_ratio": "3",
    "vm.min_free_kbytes": "1048576",
    "vm.max_map_count": "1048576",
    "vm.compaction_proactiveness": "0",
    "vm.stat_interval": "10",
    "kernel.numa_balancing": "0",
    "kernel.nmi_watchdog": "0",
    "kernel.timer_migration": "0",
    "kernel.sched_autogroup_enabled": "0",
    "kernel.pid_max": "4194304",
    "kernel.threads-max": "4000000",
    "fs.aio-max-nr": "1048576",
    "fs.inotify.max_user_instances": "8192",
    "net.core.somaxconn": "65535",
    "net.core.rmem_max": "67108864",
    "net.core.wmem_max": "67108864",
    "net.core.netdev_budget": "600",
    "net.core.netdev_max_backlog": "16384",
    "net.ipv4.tcp_max_syn_backlog": "65535",
    "net.ipv4.tcp_slow_start_after_idle": "0",
    "net.ipv4.tcp_notsent_lowat": "131072",
    "net.ipv4.tcp_rmem": "4096\t131072\t67108864",
    "net.ipv4.tcp_wmem": "4096\t16384\t67108864",
    "net.ipv4.ip_local_port_range": "10240\t65535",
    "net.ipv4.tcp_mtu_probing": "1",
    "net.ipv4.neigh.default.gc_thresh3": "8192",
    "net.netfilter.nf_conntrack_max": "1048576",
}
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max processes             {nproc}                {nproc}                processes
Max open files            {nofile}                524288               files
Max locked memory         {memlock}              {memlock}              bytes
"""


@dataclass
class Shape:
    """What a made-up box is like. CPUs are few: rows look at kinds, not at numbers."""

    nodes: int = 2
    cores: int = 4
    threads: int = 2
    memory_gib: int = 1024
    tuned: bool = False
    virtual: bool = False
    driver: str = "amd-pstate-epp"
    clock: str = "tsc"
    gpus: int = 0
    gpu_width: tuple[int, int] = (16, 16)
    nics: int = 0
    nic_mbit: int = 100_000
    nic_queues: int = 2
    packet_bytes: int = 1400
    nvme: int = 0
    virtual_disks: int = 0
    rotating_disks: int = 0
    nvswitch: bool = False
    engine: bool = False
    cmdline: str = "BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet"
    mounts: str = "/dev/nvme0n1p2 / ext4 rw,relatime 0 0\ntmpfs /dev/shm tmpfs rw,size=536870912k 0 0\n"
    files: dict[str, str] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)

    @property
    def cpus(self) -> list[int]:
        return list(range(self.nodes * self.cores * self.threads))

    def cpus_of(self, node: int) -> str:
        first, step = node * self.cores, self.nodes * self.cores
        return short_list(
            [first + core + thread * step for core in range(self.cores) for thread in range(self.threads)]
        )


def _host(shape: Shape) -> dict[str, str]:
    good, all_cpus = shape.tuned, short_list(shape.cpus)
    sysctls = SYSCTLS | (TUNED if good else BROKEN) | shape.sysctls
    files = {f"proc/sys/{key.replace('.', '/')}": f"{value}\n" for key, value in sysctls.items()}
    swaps = "Filename\tType\tSize\tUsed\tPriority\n" + ("" if good else "/swap.img file 8388604 0 -2\n")
    squeezed = "00000000" if good else "0000ffff"
    thp = "always [madvise] never\n" if good else "[always] madvise never\n"
    defrag = "always [defer] defer+madvise madvise never\n" if good else "always defer defer+madvise [madvise] never\n"
    cpu = "sys/devices/system/cpu"
    files |= {
        "proc/cpuinfo": f"flags\t\t: fpu avx512f{' hypervisor' if shape.virtual else ''}\n",
        "proc/meminfo": f"MemTotal: {shape.memory_gib << 20} kB\n",
        "proc/cmdline": shape.cmdline + "\n",
        "proc/swaps": swaps,
        "proc/loadavg": "1.0 1.0 1.0 2/40000 999\n",
        "proc/1/comm": "systemd\n" if good else "init\n",
        "proc/self/status": f"CapEff:\t000001ffffffffff\nCpus_allowed_list:\t{all_cpus}\n",
        "proc/self/cgroup": "0::/\n",
        "proc/self/mounts": shape.mounts,
        "proc/self/limits": LIMITS.format(
            nproc=1000000 if good else 4096, nofile=1048576 if good else 1024, memlock="unlimited" if good else 8388608
        ),
        "proc/net/softnet_stat": f"0000ffff 00000{'000' if good else '0ff'} {squeezed}\n",
        "proc/net/arp": "IP address\n" + "x\n" * (2 if good else 500),
        "etc/default/grub": "",
        "dev/shm/.keep": "",
        "sys/kernel/mm/transparent_hugepage/enabled": thp,
        "sys/kernel/mm/transparent_hugepage/defrag": defrag,
        "sys/kernel/mm/transparent_hugepage/khugepaged/defrag": "0\n" if good else "1\n",
        "sys/kernel/mm/ksm/run": "0\n" if good else "1\n",
        "sys/kernel/debug/sched/preempt": "none voluntary (full)\n" if good else "(none) voluntary full\n",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": f"{shape.clock}\n",
        "sys/devices/system/clocksource/clocksource0/available_clocksource": f"{shape.clock} tsc hpet acpi_pm\n",
        "sys/module/pcie_aspm/parameters/policy": (
            "default [performance] powersave\n" if good else "[default] performance powersave\n"
        ),
        f"{cpu}/online": f"{all_cpus}\n",
        f"{cpu}/present": f"{all_cpus if good else short_list([*shape.cpus, len(shape.cpus)])}\n",
        f"{cpu}/isolated": "\n" if good else "1-2\n",
        f"{cpu}/cpuidle/current_driver": "acpi_idle\n",
        f"{cpu}/cpuidle/current_governor": "haltpoll\n" if good else "menu\n",
        f"{cpu}/cpuidle/available_governors": "haltpoll menu\n",
        "sys/devices/system/node/online": f"{short_list(list(range(shape.nodes)))}\n",
    }
    if good:
        files |= {"proc/pressure/cpu": "some avg10=0.00\n", "sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n"}
    files["sys/fs/cgroup/cpu.max"] = "max 100000\n" if good else "400000 100000\n"
    files["sys/fs/cgroup/pids.max"] = "max\n" if good else "4096\n"
    files["sys/fs/cgroup/memory.high"] = "max\n" if good else "68719476736\n"
    for node in range(shape.nodes):
        here = f"sys/devices/system/node/node{node}"
        share = shape.memory_gib if good or not node else shape.memory_gib // 4
        files |= {
            f"{here}/cpulist": f"{shape.cpus_of(node)}\n",
            f"{here}/meminfo": f"Node {node} MemTotal: {share << 20} kB\n",
        }
        for kib in (2048, 1048576):
            reserved = 0 if good else 16
            for name in ("nr", "free"):
                files[f"{here}/hugepages/hugepages-{kib}kB/{name}_hugepages"] = f"{reserved}\n"
    return files


def _cpu(shape: Shape) -> dict[str, str]:
    cpu, files = "sys/devices/system/cpu", {}
    good = shape.tuned
    step = shape.nodes * shape.cores
    for number in shape.cpus:
        here = f"{cpu}/cpu{number}"
        siblings = [number % step + thread * step for thread in range(shape.threads)]
        files[f"{here}/topology/thread_siblings_list"] = f"{short_list(siblings)}\n"
        if shape.driver:
            files |= _policy(f"{cpu}/cpufreq/policy{number}", shape.driver, good)
            for state, latency in enumerate((0, 2, 133)):
                files[f"{here}/cpuidle/state{state}/latency"] = f"{latency}\n"
                files[f"{here}/cpuidle/state{state}/disable"] = f"{int(good and latency > 10)}\n"
    if shape.driver == "intel_pstate":
        files[f"{cpu}/intel_pstate/no_turbo"] = f"{int(not good)}\n"
    elif shape.driver:
        files[f"{cpu}/cpufreq/boost"] = f"{int(good)}\n"
    return files


def _policy(here: str, driver: str, good: bool) -> dict[str, str]:
    files = {
        f"{here}/scaling_driver": f"{driver}\n",
        f"{here}/scaling_governor": "performance\n" if good else "powersave\n",
        f"{here}/scaling_available_governors": "performance powersave\n",
        f"{here}/scaling_max_freq": "4400000\n" if good else "2000000\n",
        f"{here}/cpuinfo_max_freq": "4400000\n",
    }
    if driver in ("amd-pstate-epp", "intel_pstate"):
        names = "default performance balance_performance balance_power power"
        files[f"{here}/energy_performance_preference"] = "performance\n" if good else "balance_power\n"
        files[f"{here}/energy_performance_available_preferences"] = names + "\n"
    return files


def acs(control: int, port: int = 6) -> str:
    """Configuration space of a port (6: downstream of a switch, 4: root) with ACS, as text of the same bytes."""
    body = bytearray(256 + 64)
    body[0x34], body[0x40:0x44] = 0x40, bytes([0x10, 0, port << 4 | 2, 0])
    struct.pack_into("<IHH", body, 0x100, 0x000D | 1 << 16, 0x5F, control)
    return body.decode("latin-1")


def _device(shape: Shape, bus: int, kind: str, vendor: str, width: tuple[int, int] = (16, 16)) -> dict[str, str]:
    node, good = bus % shape.nodes, shape.tuned
    here = f"sys/bus/pci/devices/0000:{bus:02x}:00.0"
    return {
        f"{here}/class": f"{kind}\n",
        f"{here}/vendor": f"{vendor}\n",
        f"{here}/numa_node": f"{node if good else -1}\n",
        f"{here}/local_cpulist": f"{shape.cpus_of(node)}\n",
        f"{here}/power/control": "on\n" if good else "auto\n",
        f"{here}/power/runtime_status": "active\n",
        f"{here}/current_link_width": f"{width[0]}\n",
        f"{here}/max_link_width": f"{width[1]}\n",
        f"{here}/current_link_speed": f"{'32.0' if good else '8.0'} GT/s PCIe\n",
        f"{here}/max_link_speed": "32.0 GT/s PCIe\n",
        f"{here}/link/l1_aspm": "1\n",
        f"{here}/aer_dev_correctable": f"RxErr 0\nTOTAL_ERR_COR {0 if good else 5000}\n",
        f"{here}/aer_dev_fatal": "TOTAL_ERR_FATAL 0\n",
        f"{here}/aer_dev_nonfatal": f"TOTAL_ERR_NONFATAL {0 if good else 3}\n",
    }


def _devices(shape: Shape) -> dict[str, str]:
    files: dict[str, str] = {}
    good = shape.tuned
    for gpu in range(shape.gpus):
        files |= _device(shape, 0x10 + gpu, "0x030200", "0x10de", shape.gpu_width)
        files[f"dev/nvidia{gpu}"] = ""
        if not shape.virtual:
            here = f"sys/bus/pci/devices/0000:{0x10 + gpu:02x}:00.0"
            files[f"{here}/iommu_group/type"] = "identity\n" if good else "DMA-FQ\n"
            bridge = f"sys/bus/pci/devices/0000:{0x60 + gpu:02x}:00.0"
            files |= {f"{bridge}/class": "0x060400\n", f"{bridge}/vendor": "0x1000\n"}
            files[f"{bridge}/config"] = acs(0 if good else 0x1D)
    if shape.nvswitch:
        files |= _device(shape, 0x50, "0x068000", "0x10de")
    for drive in range(shape.nvme):
        name = f"nvme{drive}n1"
        files |= _device(shape, 0x30 + drive, "0x010802", "0x144d", (4, 4) if good else (2, 4))
        files |= _disk(shape, name, "[none] mq-deadline kyber\n" if good or drive else "none [mq-deadline] kyber\n", 2)
        for queue in range(3):
            irq = 200 + drive * 8 + queue
            files[f"sys/bus/pci/devices/0000:{0x30 + drive:02x}:00.0/msi_irqs/{irq}"] = ""
            near = (0x30 + drive) % shape.nodes
            files[f"proc/irq/{irq}/smp_affinity_list"] = f"{shape.cpus_of(near if good else 1 - near)}\n"
            if drive != 1:  # the second drive's driver leaves its queues to whoever sets them
                files[f"proc/irq/{irq}/nvme{drive}q{queue}/.keep"] = ""
        files["sys/module/nvme_core/parameters/default_ps_max_latency_us"] = "0\n" if good else "100000\n"
    for disk in range(shape.virtual_disks):
        files |= _disk(shape, f"vd{chr(97 + disk)}", "[mq-deadline] none\n", 1)
    for disk in range(shape.rotating_disks):
        files |= _disk(shape, f"sd{chr(97 + disk)}", "mq-deadline [none] bfq\n", 1, rotating=True)
    for nic in range(shape.nics):
        files |= _nic(shape, nic)
    return files


def _disk(shape: Shape, name: str, schedulers: str, queues: int, rotating: bool = False) -> dict[str, str]:
    here, good = f"sys/block/{name}", shape.tuned
    files = {f"{here}/mq/{queue}/cpu_list": "0, 1, 2, 3\n" for queue in range(queues)}
    return files | {
        f"{here}/size": "7501476528\n",
        f"{here}/queue/scheduler": schedulers,
        f"{here}/queue/rotational": f"{int(rotating)}\n",
        f"{here}/queue/read_ahead_kb": "4096\n" if good else "128\n",
        f"{here}/queue/rq_affinity": "1\n" if good else "0\n",
        f"{here}/queue/max_sectors_kb": "1280\n" if good else "128\n",
        f"{here}/queue/max_hw_sectors_kb": "4096\n",
        f"{here}/queue/iostats": "1\n" if good else "0\n",
    }


def _nic(shape: Shape, nic: int) -> dict[str, str]:
    here, good = f"sys/class/net/eth{nic}", shape.tuned
    files = _device(shape, 0x20 + nic, "0x020000", "0x15b3")
    near = (0x20 + nic) % shape.nodes
    irq = 100 + nic
    files[f"sys/bus/pci/devices/0000:{0x20 + nic:02x}:00.0/msi_irqs/{irq}"] = ""
    files[f"proc/irq/{irq}/smp_affinity_list"] = f"{shape.cpus_of(near if good else 1 - near)}\n"
    files |= {
        f"{here}/device/vendor": "0x15b3\n",
        f"{here}/operstate": "up\n",
        f"{here}/speed": f"{shape.nic_mbit}\n",
        f"{here}/mtu": "9000\n" if good else "1500\n",
    }
    for way in ("rx", "tx"):
        files[f"{here}/statistics/{way}_packets"] = "1000000\n"
        files[f"{here}/statistics/{way}_bytes"] = f"{shape.packet_bytes * 1_000_000}\n"
    for queue in range(shape.nic_queues):
        files[f"{here}/queues/rx-{queue}/rps_cpus"] = "00000000,00000000\n" if good else "00000000,000000ff\n"
    return files


def _engine(shape: Shape) -> dict[str, str]:
    """vLLM as pid 4711, bound to node 0 on a tuned box."""
    good = shape.tuned
    allowed, memory = (shape.cpus_of(0), "bind:0") if good else (short_list(shape.cpus), "default")
    limits = _host(shape)["proc/self/limits"]
    return {
        "proc/4711/status": f"Cpus_allowed_list:\t{allowed}\nMems_allowed_list:\t0-{shape.nodes - 1}\n",
        "proc/4711/numa_maps": f"7f0000000000 {memory} anon=1 dirty=1 N0=1\n",
        "proc/4711/limits": limits,
    }


def _smi(shape: Shape, name: str) -> dict[str, tuple[int, str]]:
    """nvidia-smi's answers for `gpus` alike, in the form in which driver 580.159 gives them on an H100."""
    if not shape.gpus:
        return {}
    good = shape.tuned
    now, most = shape.gpu_width
    mig = "[N/A]" if "L40S" in name else "Disabled" if good else "Enabled"
    limit = "700.00" if good else "500.00"
    gen = "5" if good else "3"
    values = {
        "": f"{'Enabled' if good else 'Disabled'}, {'Enabled' if good else 'Disabled'}, {mig}, "
        f"{'Default' if good else 'Prohibited'}, {limit}, 700.00, {now}, {most}, {gen}, 5, P0, 580.95.05, 9.0",
        "reasons": "Not Active, Not Active, Not Active" if good else "Active, Not Active, Active",
        "rows": "No, No" if good else "Yes, No",
    }
    queries = {"": SMI, **SMI_LATER}
    commands = {
        f"nvidia-smi --query-gpu=index,{queries[key]} --format=csv,noheader,nounits": (
            0,
            "".join(f"{gpu}, {value}\n" for gpu in range(shape.gpus)),
        )
        for key, value in values.items()
    }
    links = "".join(f"\t Link {link}: {'26.562 GB/s' if good or link else '<inactive>'}\n" for link in range(4))
    commands["nvidia-smi nvlink -s"] = (0, f"GPU 0: {name}\n{links}") if shape.nvswitch else (0, "")
    return commands


def made_up(root: Path, shape: Shape, name: str = "", **box: object) -> FakeSys:
    """Plants a synthetic box under `root`."""
    files = _host(shape) | _cpu(shape) | _devices(shape)
    if shape.gpus:
        flavour = "NVIDIA UNIX Open Kernel Module for x86_64" if shape.tuned else "NVIDIA UNIX x86_64 Kernel Module"
        branch = "580.95.05" if shape.tuned else "535.288.01"
        files |= {
            "proc/driver/nvidia/version": f"NVRM version: {flavour}  {branch}\n",
            "sys/module/nvidia/version": branch,
        }
        files["usr/bin/docker"] = ""
        if shape.tuned:
            files["etc/cdi/nvidia.yaml"] = "cdiVersion: 0.6.0\n"
            files["sys/fs/cgroup/system.slice/nvidia-fabricmanager.service/cgroup.procs"] = "77\n"
        else:
            files["sys/module/nouveau/initstate"] = "live\n"
    if shape.engine:
        files |= _engine(shape)
    files |= shape.files
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode("latin-1"))
    made = Box(label="synthetic", **box)  # type: ignore[arg-type]
    log = "" if shape.tuned else "NVRM: Xid (PCI:0000:10:00): 79, GPU has fallen off the bus\nNVRM: BAR1 is 0M\n"
    made.commands |= {
        "ps -eo pid=,args=": (0, "1 /sbin/init\n" + ("4711 vllm serve m\n" if shape.engine else "")),
        "ss -Hltn": (0, "LISTEN 0 4096 0.0.0.0:8000 0.0.0.0:*\n"),
        "dmesg": (0, log),
        **_smi(shape, name),
        **made.commands,
    }
    made.save(root)
    return FakeSys(root)


NFS = (
    "/dev/nvme0n1p2 / ext4 rw,{atime} 0 0\ntmpfs /dev/shm tmpfs rw,size={shm} 0 0\n"
    "nas:/models /models nfs4 rw,vers=4.2,rsize={rsize}{connections} 0 0\n"
    "/dev/sdb1 /data ext4 rw,relatime{discard} 0 0\n"
)
NFS_FILES = {"proc/self/mountinfo": "99 1 0:52 / /models rw - nfs4 nas:/models rw\n"}


def epyc_8gpu(root: Path) -> FakeSys:
    """Two sockets, eight H100, everything as a careless installation leaves it."""
    mounts = NFS.format(atime="strictatime", shm="65536k", rsize=65536, connections="", discard=",discard")
    files = NFS_FILES | {
        "sys/class/bdi/0:52/read_ahead_kb": "128\n",
        "sys/class/infiniband/mlx5_0/node_type": "1: CA\n",
        "sys/kernel/realtime": "1\n",
        "run/tuned/tuned.pid": "500\n",
        "proc/500/comm": "tuned\n",
        "etc/tuned/active_profile": "balanced\n",
        "usr/lib/tuned/profiles/balanced/tuned.conf": "[cpu]\ngovernor=schedutil\n[sysctl]\nvm.swappiness=60\n",
        "sys/fs/cgroup/system.slice/irqbalance.service/cgroup.procs": "600\n",
        "etc/default/irqbalance": "#IRQBALANCE_BANNED_CPULIST=\n",
    }
    shape = Shape(
        gpus=8, nics=2, nvme=4, rotating_disks=1, nvswitch=True, engine=True, mounts=mounts, files=files, clock="hpet"
    )
    shape.cmdline += " mitigations=off slub_debug=FZP init_on_alloc=1"
    return made_up(root, shape, "NVIDIA H100 80GB HBM3")


def xeon_a100(root: Path) -> FakeSys:
    """Two Xeon sockets, four A100, tuned by hand."""
    mounts = NFS.format(atime="noatime", shm="536870912k", rsize=1048576, connections=",nconnect=8", discard="")
    files = NFS_FILES | {
        "sys/class/bdi/0:52/read_ahead_kb": "16384\n",
        "sys/class/infiniband/mlx5_0/node_type": "1: CA\n",
        "sys/kernel/realtime": "0\n",
        "sys/fs/cgroup/system.slice/tuned.service/cgroup.procs": "500\n",
        "etc/tuned/active_profile": "throughput-performance\n",
        "usr/lib/tuned/throughput-performance/tuned.conf": "[sysctl]\nvm.swappiness=10\n",
        "sys/fs/cgroup/system.slice/irqbalance.service/cgroup.procs": "600\n",
        "etc/sysconfig/irqbalance": 'IRQBALANCE_BANNED_CPULIST="2-7"\n',
    }
    shape = Shape(tuned=True, driver="intel_pstate", engine=True, gpus=4, nics=2, nvme=2, mounts=mounts, files=files)
    return made_up(root, shape, "NVIDIA A100-SXM4-80GB")


def grace(root: Path) -> FakeSys:
    """Grace Hopper: ARM, a frequency driver without hints, one node with CPUs and one of GPU memory."""
    files = {
        "sys/devices/system/node/online": "0-1\n",
        "sys/devices/system/node/node1/cpulist": "\n",
        "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal: 98304000 kB\n",
    }
    shape = Shape(nodes=1, threads=1, cores=8, driver="cppc_cpufreq", clock="arch_sys_counter", gpus=1, nvme=1)
    shape.files = files
    return made_up(root, shape, "NVIDIA GH200 480GB")


def l40s(root: Path) -> FakeSys:
    """One socket, four L40S on PCI Express, one of the links at half its width in every GPU."""
    shape = Shape(nodes=1, cores=8, memory_gib=256, gpus=4, gpu_width=(8, 16), nvme=2, nics=1, nic_mbit=25_000)
    shape.packet_bytes, shape.driver = 300, "intel_pstate"
    shape.sysctls = {"vm.dirty_bytes": "1048576", "vm.dirty_ratio": "0"}
    shape.sysctls |= {"vm.dirty_background_bytes": "65536", "vm.dirty_background_ratio": "0"}
    shape.files = {"sys/class/net/eth0/mtu": "9000\n"}
    return made_up(root, shape, "NVIDIA L40S")


def cloud_vm(root: Path) -> FakeSys:
    """A virtual machine with one GPU: no clocks, no links, a one-queue card that tells no speed."""
    mounts = "/dev/vda1 / ext4 rw,relatime,discard 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n"
    shape = Shape(nodes=1, cores=4, memory_gib=64, virtual=True, driver="", gpus=1, virtual_disks=1, nics=1)
    shape.nic_mbit, shape.nic_queues, shape.mounts = -1, 1, mounts
    shape.files = {"sys/class/net/eth0/queues/rx-0/rps_cpus": "00000000,00000000\n"}
    return made_up(root, shape, "NVIDIA A10G")


def kubernetes_pod(root: Path) -> FakeSys:
    """A pod with a CPU limit: /proc/sys and /sys are read-only, the rest is the host's."""
    mounts = (
        "overlay / overlay rw,relatime 0 0\nproc /proc proc rw 0 0\nproc /proc/sys proc ro 0 0\n"
        "sysfs /sys sysfs ro 0 0\ntmpfs /dev/shm tmpfs rw,size=65536k 0 0\n"
    )
    files = {"var/run/secrets/kubernetes.io/serviceaccount/namespace": "default\n"}
    shape = Shape(gpus=1, nvme=1, nics=1, mounts=mounts, files=files)
    files["proc/self/status"] = f"CapEff:\t00000000a80425fb\nCpus_allowed_list:\t{short_list(shape.cpus)}\n"
    return made_up(root, shape, "NVIDIA H100 80GB HBM3", readonly=["/proc/sys", "/sys"])


def h200_host(root: Path) -> FakeSys:
    """Eight H200 behind NVSwitch, tuned, a sysctl file of somebody's that comes late."""
    files = {
        "etc/sysctl.d/95-site.conf": "vm.swappiness = 60\nnet.core.somaxconn=65535\n",
        "usr/lib/sysctl.d/10-map-count.conf": "vm.max_map_count=1048576\n",
        "etc/udev/rules.d/99-disks.rules": 'KERNEL=="nvme*", ATTR{queue/read_ahead_kb}="128"\n',
    }
    shape = Shape(tuned=True, cores=8, gpus=8, nics=4, nvme=8, nvswitch=True, files=files, nic_mbit=400_000)
    shape.sysctls = {"vm.dirty_bytes": "4294967296", "vm.dirty_ratio": "0"}
    shape.sysctls |= {"vm.dirty_background_bytes": "1073741824", "vm.dirty_background_ratio": "0"}
    shape.cmdline += " iommu=pt init_on_alloc=0"
    return made_up(root, shape, "NVIDIA H200")


def microvm(root: Path) -> FakeSys:
    """Recorded by `RecordingSys` on a microVM of two CPUs without a GPU, then shortened; nothing in it was made up."""
    kept = json.loads((Path(__file__).parent / "recorded_microvm.json").read_text())
    for path in kept["folders"]:
        (root / path).mkdir(parents=True, exist_ok=True)
    for path, content in kept["files"].items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    Box(**kept["box"]).save(root)
    return FakeSys(root)


_FOLDER = TemporaryDirectory(prefix="redline-boxes-")
atexit.register(_FOLDER.cleanup)


@cache
def built(name: str) -> FakeSys:
    """The box of that name, planted once per test process: leave it as it was."""
    return BOXES[name](Path(_FOLDER.name) / name)


BOXES: dict[str, Callable[[Path], FakeSys]] = {
    "epyc_8gpu": epyc_8gpu,
    "xeon_a100": xeon_a100,
    "grace": grace,
    "l40s": l40s,
    "cloud_vm": cloud_vm,
    "kubernetes_pod": kubernetes_pod,
    "h200_host": h200_host,
    "microvm": microvm,
}
