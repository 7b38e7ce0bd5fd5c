"""CPU facts: what it is, how many cores this process may really use, and what sets its clock."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from redline.node.cgroup import cpu_limit, throttled_s
from redline.node.tree import Fact, cpu_list, fields, number, short_list, skipped, text

# what decides how fast an engine's kernels can be on this CPU
_FEATURES = (
    *("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile"),
    *("amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve", "sve2"),
)


def cpu_facts(root: Path = Path("/"), machine: str = "") -> Fact:
    """Everything about the CPU; `usable_cores` is what affinity and quota leave, in logical CPUs. `machine`: the
    architecture of a box that is not this one."""
    machine = machine or platform.machine()
    info = fields(text(root, "proc/cpuinfo"))
    online = cpu_list(text(root, "sys/devices/system/cpu/online")) or list(range(os.cpu_count() or 1))
    allowed = affinity(root, online)
    quota = cpu_limit(root)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "model": info.get("model name") or info.get("Processor") or machine,
        "vendor": info.get("vendor_id") or info.get("CPU implementer", ""),
        "architecture": machine,
        "microcode": info.get("microcode") or skipped("not exposed", "bare metal, or a hypervisor that shows it"),
        "features": [feature for feature in _FEATURES if feature in flags],
        **_topology(root, online),
        "affinity": short_list(allowed),
        "quota_cores": quota,
        "usable_cores": min(float(len(allowed)), quota) if quota else float(len(allowed)),
        "throttled_s": throttled_s(root) if quota else 0.0,
        "numa_nodes": _numa(root),
        "frequency": _frequency(root),
        "idle_driver": text(root, "sys/devices/system/cpu/cpuidle/current_driver") or skipped("no cpuidle"),
    }


def affinity(root: Path, online: list[int]) -> list[int]:
    """CPUs on which this process may run."""
    status = fields(text(root, "proc/self/status"))
    listed = cpu_list(status.get("Cpus_allowed_list"))
    return [cpu for cpu in listed if cpu in set(online)] or online


def _topology(root: Path, online: list[int]) -> Fact:
    cores, sockets = set(), set()
    for cpu in online:
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        socket = number(root, f"{topology}/physical_package_id") or 0
        siblings = text(root, f"{topology}/thread_siblings_list") or str(cpu)
        cores.add(siblings)
        sockets.add(socket)
    smt = text(root, "sys/devices/system/cpu/smt/control")
    active = len(cores) < len(online)
    return {
        "sockets": len(sockets),
        "cores": len(cores),
        "threads": len(online),
        "smt": "on" if active else "off" if smt in (None, "notsupported", "notimplemented") else smt,
    }


def _numa(root: Path) -> list[Fact]:
    nodes = []
    for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        memory = fields(text(root, f"sys/devices/system/node/{folder.name}/meminfo"))
        total = next((value for name, value in memory.items() if name.endswith("MemTotal")), "0 kB")
        cpus = text(root, f"sys/devices/system/node/{folder.name}/cpulist") or ""
        distance = text(root, f"sys/devices/system/node/{folder.name}/distance") or ""
        size = int(total.split()[0]) * 1024
        nodes.append({"node": int(folder.name[4:]), "cpus": cpus, "memory_bytes": size, "distance": distance})
    return nodes


def _frequency(root: Path) -> Fact:
    """Driver, governor and energy preference; counts where policies differ."""
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"))
    if not policies:
        return skipped("no frequency control is exposed", "a virtual machine leaves it to its host; ask for bare metal")
    found: Fact = {"policies": len(policies)}
    for name, file in (
        ("driver", "scaling_driver"),
        ("governor", "scaling_governor"),
        ("energy_preference", "energy_performance_preference"),
    ):
        values = {text(policy, file) for policy in policies} - {None}
        found[name] = " / ".join(sorted(str(value) for value in values)) or skipped("not exposed by this driver")
    for name, file in (("min_mhz", "scaling_min_freq"), ("max_mhz", "scaling_max_freq")):
        khz = number(policies[0], file)
        found[name] = None if khz is None else khz / 1000
    no_turbo = number(root, "sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = number(root, "sys/devices/system/cpu/cpufreq/boost")
    found["boost"] = bool(boost) if boost is not None else None if no_turbo is None else not no_turbo
    return found
