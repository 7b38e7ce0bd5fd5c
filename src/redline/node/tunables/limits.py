"""Rows about what a process may have, and about how the machine was booted."""

from __future__ import annotations

from redline.node.sys import Sys, text
from redline.node.tunables.find import boot_argument, engines, kernel_log, no_gpu, number, of_cgroup, one, rdma, word
from redline.node.tunables.rows import GRACE, advice, everywhere, kernel_doc, only_for, sysctl, want
from redline.node.tunables.tunable import AT_START, Place, Reader, Reason, Source, Tunable
from redline.node.writable import has_capability, in_container

_FS = kernel_doc("admin-guide/sysctl/fs.rst")
_KERNEL = kernel_doc("admin-guide/sysctl/kernel.rst")
_CGROUP = kernel_doc("admin-guide/cgroup-v2.rst")
_EXEC = Source("tool", "systemd.exec(5): limits.d reaches login sessions only, services need Limit*=", "2026-11")
_PARAMETERS = kernel_doc("admin-guide/kernel-parameters.txt")


def _limits(sys: Sys) -> list[Place]:
    """Of the engines that run; of this process when none does."""
    running = [Place(f"/proc/{pid}/limits", f"{name} {pid}") for pid, name in engines(sys)]
    return running or [Place("/proc/self/limits", "this process")]


def _limit(name: str) -> Reader:
    """The soft limit of a process, `Max open files` and the like."""

    def read(sys: Sys, place: Place) -> str:
        content = sys.read(place.path).decode(errors="replace")
        line = next((line for line in content.splitlines() if line.startswith(name)), "")
        return line.removeprefix(name).split()[0] if line else ""

    return read


def _cannot_raise(sys: Sys, _place: Place) -> str:
    return "" if has_capability(sys, "SYS_RESOURCE") else "root without CAP_SYS_RESOURCE cannot raise a hard limit here"


def _no_rdma(sys: Sys, _place: Place) -> str:
    return "" if rdma(sys) else "no RDMA card: CUDA's pinned memory does not count against it"


def _low_use(used_path: str, part: int) -> Reason:
    def reason(sys: Sys, place: Place) -> str:
        used = (text(sys, used_path) or "").split()
        limit = number(sys, place.path)
        if len(used) <= part or not limit or int(used[part]) * 4 > limit:
            return ""
        return f"{int(used[part]):,} of {limit:,} in use"

    return reason


def _mitigations(sys: Sys, _place: Place) -> str:
    value = boot_argument(sys, "mitigations")
    return (value or "auto").split(",")[0]


def _debugging(sys: Sys, _place: Place) -> str:
    names = ("slub_debug", "slab_debug", "kmemleak", "kasan", "page_poison", "debug_pagealloc", "page_owner")
    given = [name for name in names if boot_argument(sys, name) not in (None, "off", "0")]
    return " ".join(given) or "none"


def _window(sys: Sys, _place: Place) -> str:
    return "no" if "BAR1 is 0M" in kernel_log(sys) else "yes"


def _hierarchy(sys: Sys, _place: Place) -> str:
    """1 where the controllers are in the one hierarchy."""
    return "0" if text(sys, "/sys/fs/cgroup/cgroup.controllers") is None else "1"


def _threads(sys: Sys, place: Place) -> str:
    """From loadavg's `running/all`."""
    parts = (text(sys, "/proc/loadavg") or "").split()
    threads = int(parts[3].partition("/")[2]) if len(parts) > 3 else 0
    limit = number(sys, place.path) or 0
    return f"{threads:,} of {limit:,} in use" if threads and threads * 4 < limit else ""


LIMITS: tuple[Tunable, ...] = (
    advice(
        "limit.memlock",
        "memory that may be locked, bytes",
        everywhere("equals", "unlimited"),
        _EXEC,
        group="limits",
        scope="pid",
        places=_limits,
        read=_limit("Max locked memory"),
        effective=_no_rdma,
        unwritable=_cannot_raise,
        advice="LimitMEMLOCK=infinity in the unit; docker run --ulimit memlock=-1",
        severity="high",
        effect="RDMA registers KV caches and buffers of many GB; with a limit that fails at start.",
    ),
    advice(
        "limit.nofile",
        "files and sockets that may be open",
        everywhere("at least", 65536),
        _EXEC,
        Source("tool", "systemd 240 NEWS: soft limit 1024, hard limit 524288", "2026-11"),
        group="limits",
        scope="pid",
        places=_limits,
        read=_limit("Max open files"),
        advice="LimitNOFILE=1048576 in the unit; docker run --ulimit nofile=1048576",
        severity="medium",
        effect="Every client is a socket, every shard a file: EMFILE at some thousand clients.",
    ),
    advice(
        "limit.nproc",
        "processes and threads of a user",
        everywhere("at least", 32768),
        _EXEC,
        group="limits",
        scope="pid",
        places=_limits,
        read=_limit("Max processes"),
        advice="LimitNPROC=infinity in the unit",
        severity="low",
        effect="Each worker starts hundreds of threads on a box with many cores.",
    ),
    advice(
        "limit.pids",
        "processes and threads of the control group",
        everywhere("at least", 16384),
        _CGROUP,
        Source("vendor", "Kubernetes kubelet podPidsLimit; systemd TasksMax", "2026-08"),
        group="limits",
        scope="unit",
        places=of_cgroup("pids.max", "pids/pids.max"),
        read=word,
        absent="no pids controller in this control group",
        advice="TasksMax=infinity in the unit; podPidsLimit in the kubelet's configuration",
        severity="medium",
        effect="Thread creation fails in the middle of an engine's start (`Resource temporarily unavailable`).",
    ),
    advice(
        "limit.memory_high",
        "memory above which the control group is slowed down",
        everywhere("equals", "max"),
        _CGROUP,
        group="limits",
        scope="unit",
        places=of_cgroup("memory.high"),
        read=word,
        absent="no memory controller of version 2 in this control group",
        advice="drop MemoryHigh= of the engine's slice; use MemoryMax= as the guard",
        severity="medium",
        effect="Page cache of a model load counts, so loading is throttled to a crawl near the limit.",
        signal="memory_high_events",
    ),
    sysctl(
        "fs.file-max",
        "open files of the whole box",
        everywhere("at least", 1 << 20),
        _FS,
        group="limits",
        effective=_low_use("/proc/sys/fs/file-nr", 0),
        severity="low",
        effect="ENFILE for everybody; the default grows with memory and is rarely reached.",
    ),
    sysctl(
        "fs.nr_open",
        "highest limit of open files that can be asked for",
        everywhere("at least", 1 << 20),
        _FS,
        group="limits",
        tags=frozenset({AT_START}),
        severity="low",
        effect="LimitNOFILE above it makes a unit fail to start.",
    ),
    sysctl(
        "fs.aio-max-nr",
        "asynchronous I/O requests of the whole box",
        everywhere("at least", 1 << 20),
        _FS,
        group="limits",
        effective=_low_use("/proc/sys/fs/aio-nr", 0),
        severity="low",
        effect="GPUDirect storage and libaio loaders fail with EAGAIN when it is used up.",
    ),
    sysctl(
        "fs.inotify.max_user_instances",
        "inotify instances of a user",
        everywhere("at least", 1024),
        _FS,
        group="limits",
        severity="low",
        effect="Hosts of many containers: `too many open files` from log and config watchers.",
    ),
    sysctl(
        "kernel.pid_max",
        "highest process id",
        everywhere("at least", 131072),
        _KERNEL,
        group="limits",
        severity="low",
        effect="Threads count: eight engines on a box with 256 CPUs come near 32768.",
    ),
    sysctl(
        "kernel.threads-max",
        "threads of the whole box",
        everywhere("at least", 131072),
        _KERNEL,
        group="limits",
        effective=_threads,
        severity="low",
        effect="Thread creation fails for everybody.",
    ),
)


BOOT: tuple[Tunable, ...] = (
    advice(
        "boot.mitigations",
        "CPU vulnerabilities are mitigated",
        {
            "latency": None,
            "throughput": None,
            "shared": want("one of", "auto", "nosmt"),
            "vm": want("one of", "auto", "nosmt"),
        },
        _PARAMETERS,
        group="boot",
        places=one("/proc/cmdline"),
        read=_mitigations,
        advice="drop mitigations=off from the boot arguments",
        persist="cmdline",
        persist_key="mitigations",
        needs_reboot=True,
        risk=3,
        severity="high",
        effect="Off, tenants can read each other's memory. On a box of one's own: only if it is measured to help.",
        signal="syscall_ns",
    ),
    advice(
        "boot.init_on_alloc",
        "kernel memory is zeroed when it is given out",
        only_for("throughput", "latency", op="one of", values=("0", "default")),
        GRACE,
        _PARAMETERS,
        group="boot",
        places=one("/proc/cmdline"),
        read=lambda sys, _place: boot_argument(sys, "init_on_alloc") or "default",
        advice="boot with init_on_alloc=0, unless the box is shared",
        persist="cmdline",
        persist_key="init_on_alloc",
        needs_reboot=True,
        risk=3,
        severity="info",
        effect="Page cache and network buffers are written twice.",
        signal="load_s",
    ),
    advice(
        "boot.debug",
        "kernel debugging options",
        everywhere("equals", "none"),
        _PARAMETERS,
        group="boot",
        places=one("/proc/cmdline"),
        read=_debugging,
        advice="drop them from the boot arguments",
        needs_reboot=True,
        risk=3,
        severity="medium",
        effect="Left over from a hunt: every allocation is checked or filled.",
    ),
    advice(
        "boot.psi",
        "pressure stall information (PSI)",
        everywhere("equals", 1),
        kernel_doc("accounting/psi.rst"),
        group="boot",
        places=one("/proc/cmdline"),
        read=lambda sys, _place: "1" if sys.exists("/proc/pressure/cpu") else "0",
        advice="boot with psi=1 (RHEL leaves it off)",
        persist="cmdline",
        persist_key="psi",
        needs_reboot=True,
        risk=3,
        severity="info",
        effect="Tells whether an engine waits for CPU, memory or I/O; costs nothing that was ever measured.",
        signal="psi",
    ),
    advice(
        "boot.cgroup",
        "control groups of version 2",
        everywhere("equals", 1),
        _CGROUP,
        Source("issue", "kubernetes/enhancements #5573: failCgroupV1 is the default from 1.35", "2026-11"),
        group="boot",
        places=one("/sys/fs/cgroup"),
        read=_hierarchy,
        applies=lambda sys, _place: "a container gets what its host has" if in_container(sys) else "",
        advice="boot with systemd.unified_cgroup_hierarchy=1",
        persist="cmdline",
        persist_key="systemd.unified_cgroup_hierarchy",
        needs_reboot=True,
        risk=3,
        severity="low",
        effect="MemoryLow, AllowedMemoryNodes and pressure per slice need version 2; Kubernetes 1.35 refuses v1.",
    ),
    advice(
        "boot.nvidia_iomem",
        "memory window of the GPUs is large enough",
        everywhere("equals", "yes"),
        Source("vendor", "NVIDIA data-center GPU driver guide: above 4G decoding", "2026-11"),
        group="boot",
        places=one("/sys/module/nvidia"),
        read=_window,
        applies=no_gpu,
        absent="no NVIDIA driver is loaded",
        advice="firmware: above 4G decoding on, or boot with pci=realloc",
        severity="high",
        effect="The driver does not start the GPU (`BAR1 is 0M`).",
    ),
)
