"""The kernel, the distribution, what lies beneath (hypervisor) and around (container), and how busy the box is."""

from __future__ import annotations

import hashlib
import platform
import resource
from pathlib import Path

from redline.node.redact import Redactor
from redline.node.tree import Fact, fields, number, skipped, text

_MACHINES = {  # what firmware calls itself
    "kvm": "kvm",
    "qemu": "kvm",
    "amazon ec2": "kvm (Amazon EC2)",
    "google": "kvm (Google Compute Engine)",
    "microsoft corporation": "hyper-v",
    "vmware": "vmware",
    "xen": "xen",
    "innotek": "virtualbox",
    "firecracker": "firecracker",
}


def kernel_facts(root: Path = Path("/")) -> Fact:
    release = fields(text(root, "etc/os-release"), "=")
    clock = "sys/devices/system/clocksource/clocksource0"
    preempt = text(root, "sys/kernel/debug/sched/preempt") or _preempt_by_name(text(root, "proc/sys/kernel/version"))
    return {
        "release": text(root, "proc/sys/kernel/osrelease") or platform.release(),
        "version": text(root, "proc/sys/kernel/version") or platform.version(),
        "cmdline": _cmdline(root) or skipped("not readable"),
        "distribution": release.get("PRETTY_NAME", "").strip('"') or skipped("no /etc/os-release"),
        "clocksource": text(root, f"{clock}/current_clocksource") or skipped("not exposed"),
        "preemption": preempt,
        "mitigations_off": "mitigations=off" in (text(root, "proc/cmdline") or ""),
        "tcp_congestion": text(root, "proc/sys/net/ipv4/tcp_congestion_control"),
        "somaxconn": number(root, "proc/sys/net/core/somaxconn"),
    }


def _cmdline(root: Path) -> str:
    """What the kernel was told; what was meant for init (after `--`), ids and addresses are nobody's business."""
    name = text(root, "proc/sys/kernel/hostname") or ""
    return told_kernel(text(root, "proc/cmdline") or "", Redactor([name, name.partition(".")[0]]))


def told_kernel(cmdline: str, redactor: Redactor) -> str:
    arguments, _, _ = f"{cmdline} ".partition(" -- ")
    return redactor.text(arguments).strip()


def _preempt_by_name(version: str | None) -> str | None:
    words = (version or "").split()
    return next((word for word in words if word.startswith("PREEMPT")), None)


def virtualisation(root: Path = Path("/")) -> Fact:
    """`hypervisor` and `container`, each '' when there is none."""
    return {"hypervisor": _hypervisor(root), "container": _container(root)}


def _hypervisor(root: Path) -> str:
    names = " ".join(
        filter(None, (text(root, f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name", "bios_vendor")))
    ).lower()
    for word, machine in _MACHINES.items():
        if word in names:
            return machine
    if kind := text(root, "sys/hypervisor/type"):
        return kind
    flags = fields(text(root, "proc/cpuinfo")).get("flags", "").split()
    if "hypervisor" not in flags:
        return ""
    firecracker = "firecracker" in (text(root, "proc/cmdline") or "") or "-fc" in (
        text(root, "proc/sys/kernel/osrelease") or ""
    )
    return "firecracker" if firecracker else "some (the CPU says so, the firmware does not name it)"


def _container(root: Path) -> str:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / "var/run/secrets/kubernetes.io").exists():
        return "kubernetes"
    if "microsoft" in (text(root, "proc/sys/kernel/osrelease") or "").lower():
        return "wsl"
    groups = text(root, "proc/1/cgroup") or ""
    for word, name in (("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "lxc")):
        if word in groups:
            return name
    environment = text(root, "proc/1/environ") or ""
    kind = next((part for part in environment.split("\0") if part.startswith("container=")), "")
    return kind.removeprefix("container=")


def load_facts(root: Path = Path("/")) -> Fact:
    """How busy the box is now: load averages, and the share of time that tasks waited (PSI), in percent."""
    average = (text(root, "proc/loadavg") or "").split()[:3]
    return {
        "loadavg": [float(value) for value in average] or skipped("no /proc/loadavg"),
        "uptime_s": float((text(root, "proc/uptime") or "0").split()[0]),
        "pressure": _pressure(root),
    }


def _pressure(root: Path) -> Fact:
    found: Fact = {}
    for resource_name in ("cpu", "memory", "io"):
        for line in (text(root, f"proc/pressure/{resource_name}") or "").splitlines():
            kind, *pairs = line.split()
            values = dict(pair.split("=") for pair in pairs)
            found[f"{resource_name}_{kind}_avg10_percent"] = float(values.get("avg10", 0))
    return found or skipped("this kernel does not measure it", "boot with psi=1")


def limit_facts() -> Fact:
    """Limits of this process."""

    def shown(kind: int) -> list[int | str]:
        pair = resource.getrlimit(kind)
        return ["unlimited" if value == resource.RLIM_INFINITY else value for value in pair]

    return {
        "open_files": shown(resource.RLIMIT_NOFILE),
        "locked_memory_bytes": shown(resource.RLIMIT_MEMLOCK),
        "processes": shown(resource.RLIMIT_NPROC),
    }


def box_hash(root: Path = Path("/")) -> str:
    """Names this box in results without telling its name: 12 hex digits of host name and machine id."""
    name = text(root, "proc/sys/kernel/hostname") or platform.node()
    machine = text(root, "etc/machine-id") or ""
    return hashlib.sha256(f"{name}\n{machine}".encode()).hexdigest()[:12]
