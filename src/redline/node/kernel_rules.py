"""What Linux does with a value written to a file of /proc or /sys, as data: ranges, choices, rounding, coupled files.

Facts from the kernel's Documentation/admin-guide/sysctl, mm/page-writeback.c, block/blk-sysfs.c, net/core,
drivers/cpufreq and kernel/irq/proc.c (6.1 to 6.18).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Form = Literal["text", "integers", "cpu list", "cpu mask"]
INT_MAX, LONG_MAX = 2**31 - 1, 2**63 - 1


@dataclass(frozen=True)
class Effect:
    """When `value` (or any, '') was written, the kernel sets `sibling` (a path relative to the file's folder) to
    `becomes`."""

    value: str
    sibling: str
    becomes: str


@dataclass(frozen=True)
class Rule:
    """`choices` names a sibling file that lists what may be written. `step`: rounded down to a multiple of it; 0: up to
    the next power of two. `count`: so many integers."""

    pattern: str
    form: Form = "integers"
    low: int = 0
    high: int = INT_MAX
    count: int = 1
    step: int = 1
    choices: str = ""
    effects: tuple[Effect, ...] = ()
    busy_unless: tuple[str, str, str] | None = None
    """(sibling, its value, the only word that may then be written): EBUSY otherwise."""


_VM, _NET = "/proc/sys/vm/", "/proc/sys/net/"
_POLICY = "/sys/devices/system/cpu/cpufreq/policy*/"

RULES: tuple[Rule, ...] = (
    Rule(f"{_VM}swappiness", high=200),
    Rule(f"{_VM}dirty_ratio", high=100, effects=(Effect("", "dirty_bytes", "0"),)),
    Rule(f"{_VM}dirty_background_ratio", high=100, effects=(Effect("", "dirty_background_bytes", "0"),)),
    # zero is refused: the way back from bytes is to write the ratio
    Rule(f"{_VM}dirty_bytes", low=8192, high=LONG_MAX, effects=(Effect("", "dirty_ratio", "0"),)),
    Rule(f"{_VM}dirty_background_bytes", low=1, high=LONG_MAX, effects=(Effect("", "dirty_background_ratio", "0"),)),
    Rule(f"{_VM}overcommit_memory", high=2),
    Rule(f"{_VM}compaction_proactiveness", high=100),
    Rule(f"{_VM}zone_reclaim_mode", high=7),
    Rule("/proc/sys/kernel/numa_balancing", high=3),
    Rule("/proc/sys/kernel/nmi_watchdog", high=1),
    Rule("/proc/sys/kernel/timer_migration", high=1),
    Rule("/proc/sys/kernel/sched_autogroup_enabled", high=1),
    Rule("/proc/sys/fs/file-max", high=LONG_MAX),
    Rule("/proc/sys/fs/aio-max-nr", high=LONG_MAX),
    Rule(f"{_NET}core/rps_sock_flow_entries", high=2**29, step=0),
    Rule(f"{_NET}ipv4/tcp_rmem", low=1, count=3),
    Rule(f"{_NET}ipv4/tcp_wmem", low=1, count=3),
    Rule(f"{_NET}ipv4/ip_local_port_range", low=1, high=65535, count=2),
    Rule(f"{_NET}ipv4/tcp_tw_reuse", high=2),
    Rule(f"{_NET}ipv4/tcp_congestion_control", "text", choices="tcp_available_congestion_control"),
    Rule(
        f"{_POLICY}scaling_governor",
        "text",
        choices="scaling_available_governors",
        # amd-pstate-epp and intel_pstate in active mode
        effects=(Effect("performance", "energy_performance_preference", "performance"),),
    ),
    Rule(
        f"{_POLICY}energy_performance_preference",
        "text",
        choices="energy_performance_available_preferences",
        busy_unless=("scaling_governor", "performance", "performance"),
    ),
    Rule("/sys/devices/system/clocksource/*/current_clocksource", "text", choices="available_clocksource"),
    Rule("/sys/devices/system/cpu/cpuidle/current_governor", "text", choices="available_governors"),
    Rule("/sys/block/*/queue/read_ahead_kb", step=4),
    Rule("/sys/class/bdi/*/read_ahead_kb", step=4),
    Rule("/sys/block/*/queue/rq_affinity", high=2),
    Rule("/sys/devices/system/cpu/cpu*/cpuidle/state*/disable", high=1),
    Rule("/sys/devices/system/cpu/cpufreq/boost", high=1),
    Rule("/sys/devices/system/cpu/intel_pstate/no_turbo", high=1),
    Rule("/sys/kernel/mm/ksm/run", high=2),
    Rule("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", high=1),
    Rule("/sys/class/net/*/mtu", low=68, high=65535),
    Rule("/sys/class/net/*/queues/rx-*/rps_cpus", "cpu mask"),
    Rule("/sys/bus/pci/devices/*/power/control", "text"),
    Rule("/proc/irq/*/smp_affinity_list", "cpu list"),
    Rule("/proc/sys/*", high=LONG_MAX),
    Rule("/sys/*/nr_hugepages", high=LONG_MAX),
    Rule("/sys/*_freq", high=LONG_MAX),
    Rule("/sys/*", "text"),
)


def rule_for(path: str) -> Rule:
    """The first rule that matches; a plain text file when none does."""
    return next((rule for rule in RULES if fnmatchcase(path, rule.pattern)), Rule(path, "text"))
