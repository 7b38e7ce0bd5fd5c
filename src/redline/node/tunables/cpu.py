"""Rows about CPUs: clocks, idle states, the scheduler, and how many cores an engine has."""

from __future__ import annotations

import posixpath

from redline.node.daemons import tuned_profiles
from redline.node.sys import Sys, text
from redline.node.tunables.find import (
    CPUS,
    cores,
    cpus_of_process,
    each,
    gpu_count,
    here,
    no_gpu,
    number,
    of_cgroup,
    one,
    word,
)
from redline.node.tunables.rows import (
    GRACE,
    VLLM_CPU,
    advice,
    everywhere,
    kernel_doc,
    only_for,
    sysctl,
    sysfs,
    tuned,
    want,
)
from redline.node.tunables.tunable import Place, Source, Tunable, Want

_PSTATE = kernel_doc("admin-guide/pm/amd-pstate.rst, intel_pstate.rst")
_IDLE = kernel_doc("admin-guide/pm/cpuidle.rst")
_SYSCTL_KERNEL = kernel_doc("admin-guide/sysctl/kernel.rst")
_WAKE_US = 10
_HYPERVISOR = "no frequency driver: the hypervisor or the firmware sets the clocks"


def _cores_here(sys: Sys, _place: Place) -> str:
    """Physical cores that this process may use; a quota counts as so many."""
    allowed = cores(sys, cpus_of_process(sys))
    quota = of_cgroup("cpu.max", "cpu/cpu.cfs_quota_us")(sys)
    limit, *rest = (text(sys, quota[0].path) or "max").split() if quota else ["max"]
    period = rest[0] if rest else text(sys, quota[0].path.replace("quota", "period")) if quota else None
    if limit.isdigit() and period:
        allowed = min(allowed, int(limit) // int(period))
    return str(allowed)


def _two_and_gpus(sys: Sys, _place: Place, _want: Want) -> Want:
    return want("at least", 2 + gpu_count(sys))


def _driver_with_epp(sys: Sys, place: Place) -> str:
    driver = text(sys, posixpath.join(posixpath.dirname(place.path), "scaling_driver")) or ""
    return (
        "" if driver in ("amd-pstate-epp", "intel_pstate") else f"the {driver or 'frequency'} driver has no such hint"
    )


def _full_clock(sys: Sys, place: Place, _want: Want) -> Want | None:
    most = number(sys, posixpath.join(posixpath.dirname(place.path), "cpuinfo_max_freq"))
    return want("at least", most) if most else None


def _slow_states(sys: Sys) -> list[Place]:
    """Idle states that take longer than 10 us to leave."""
    found = []
    for path in sys.glob(f"{CPUS}/cpu[0-9]*/cpuidle/state*/disable"):
        latency = number(sys, posixpath.join(posixpath.dirname(path), "latency"))
        if latency is not None and latency > _WAKE_US:
            cpu, state = path.split("/")[5], path.split("/")[7]
            found.append(Place(path, f"{cpu}/{state}"))
    return found


def _all_present(sys: Sys, _place: Place, _want: Want) -> Want | None:
    present = text(sys, f"{CPUS}/present")
    return want("equals", present) if present else None


def _isolated(sys: Sys, place: Place) -> str:
    return word(sys, place) or "none"


def _available_clock(sys: Sys, place: Place, wanted: Want) -> Want | None:
    listed = (text(sys, posixpath.join(posixpath.dirname(place.path), "available_clocksource")) or "").split()
    usable = [each_clock for each_clock in wanted.values if each_clock in listed]
    return want("one of", *usable) if usable else None


def _quota(sys: Sys, place: Place) -> str:
    return "max" if word(sys, place).split()[0] in ("max", "-1") else word(sys, place).split()[0]


def _tuned_profile(sys: Sys, _place: Place) -> str:
    return " ".join(tuned_profiles(sys))


CPU: tuple[Tunable, ...] = (
    advice(
        "cpu.cores_for_engine",
        "physical cores that an engine may use",
        everywhere("at least", 2),
        VLLM_CPU,
        Source("measured", "Tanguille/cluster #4879: 2 to 6 CPUs, ITL 62.1 to 31.4 ms (one site)", "2026-11"),
        group="cpu",
        scope="pid",
        places=here(),
        read=_cores_here,
        applies=no_gpu,
        fit=_two_and_gpus,
        advice="give the container or slice 2 cores and one more per GPU (twice as many vCPUs with SMT)",
        severity="high",
        effect="The engine's core and API server spin; with too few cores every token waits (ITL 62 to 31 ms with 6).",
        signal="run_queue_ms",
    ),
    advice(
        "cpu.quota",
        "CPU bandwidth limit of the control group",
        everywhere("equals", "max"),
        kernel_doc("admin-guide/cgroup-v2.rst"),
        group="cpu",
        scope="unit",
        places=of_cgroup("cpu.max", "cpu/cpu.cfs_quota_us"),
        read=_quota,
        absent="no CPU controller in this control group",
        advice="drop CPUQuota= (Kubernetes: the CPU limit) and give whole CPUs with a cpuset instead",
        severity="high",
        effect="A group that has used up its slice sleeps for the rest of 100 ms: spikes of that size in ITL.",
        signal="nr_throttled",
    ),
    sysfs(
        "cpu.governor",
        "frequency governor",
        each(f"{CPUS}/cpufreq/policy*/scaling_governor"),
        everywhere("equals", "performance"),
        _PSTATE,
        tuned("throughput-performance"),
        group="cpu",
        scope="cpu",
        absent=_HYPERVISOR,
        persist_key="scaling_governor",
        coupled=("cpu.epp",),
        owners=("tuned", "power-profiles-daemon"),
        risk=1,
        severity="medium",
        effect="Cores that wake for one token at a time stay at a low clock under powersave and schedutil.",
        signal="cpu_mhz",
    ),
    sysfs(
        "cpu.epp",
        "energy preference of the frequency driver",
        each(f"{CPUS}/cpufreq/policy*/energy_performance_preference"),
        everywhere("equals", "performance"),
        _PSTATE,
        tuned("throughput-performance"),
        group="cpu",
        scope="cpu",
        applies=_driver_with_epp,
        absent="no driver that takes a preference (amd-pstate-epp, intel_pstate)",
        persist_key="energy_performance_preference",
        coupled=("cpu.governor",),
        owners=("tuned", "power-profiles-daemon"),
        risk=1,
        severity="medium",
        effect="In active mode the hardware follows this hint more than the governor's name.",
        signal="cpu_mhz",
    ),
    sysfs(
        "cpu.max_freq",
        "highest clock allowed, kHz",
        each(f"{CPUS}/cpufreq/policy*/scaling_max_freq"),
        everywhere("at least", 0),
        kernel_doc("admin-guide/pm/cpufreq.rst"),
        group="cpu",
        scope="cpu",
        fit=_full_clock,
        absent=_HYPERVISOR,
        persist_key="scaling_max_freq",
        owners=("tuned",),
        risk=1,
        severity="medium",
        effect="A cap left behind by a power profile: every host-side step gets slower by its share.",
        signal="cpu_mhz",
    ),
    sysfs(
        "cpu.boost",
        "turbo (cpufreq boost)",
        one(f"{CPUS}/cpufreq/boost"),
        everywhere("equals", 1),
        kernel_doc("admin-guide/pm/cpufreq.rst"),
        group="cpu",
        absent="the frequency driver has no such switch",
        persist_key="boost",
        risk=1,
        severity="medium",
        effect="Few busy cores run well above the base clock.",
        signal="cpu_mhz",
    ),
    sysfs(
        "cpu.no_turbo",
        "turbo forbidden (intel_pstate)",
        one(f"{CPUS}/intel_pstate/no_turbo"),
        everywhere("equals", 0),
        _PSTATE,
        group="cpu",
        absent="not driven by intel_pstate",
        persist_key="no_turbo",
        owners=("tuned",),
        risk=1,
        severity="medium",
        effect="Few busy cores run well above the base clock.",
        signal="cpu_mhz",
    ),
    sysfs(
        "cpu.idle_states",
        "idle states that take over 10 us to leave: disabled",
        _slow_states,
        only_for("latency", op="equals", values=(1,)),
        _IDLE,
        tuned("latency-performance (force_latency)"),
        group="cpu",
        scope="cpu",
        absent="no idle state takes longer than 10 us to leave",
        persist_key="disable",
        risk=1,
        severity="low",
        effect="Wake-ups lose tens to hundreds of us; costs power and the turbo of other cores: measure.",
        signal="wakeup_us",
    ),
    sysfs(
        "cpu.idle_governor",
        "idle governor of a virtual CPU",
        one(f"{CPUS}/cpuidle/current_governor"),
        only_for("vm", op="equals", values=("haltpoll",)),
        kernel_doc("virt/guest-halt-polling.rst"),
        group="cpu",
        fit=lambda sys, _place, wanted: (
            wanted if "haltpoll" in (text(sys, f"{CPUS}/cpuidle/available_governors") or "") else None
        ),
        effective=lambda sys, _place: (
            "" if (text(sys, f"{CPUS}/cpuidle/current_driver") or "none") != "none" else "no idle driver is loaded"
        ),
        absent="this kernel has no cpuidle",
        persist_key="current_governor",
        severity="info",
        effect="Polls shortly before it halts: a wake-up without leaving the virtual machine.",
        signal="wakeup_us",
    ),
    advice(
        "cpu.online",
        "CPUs that are on",
        everywhere("equals", ""),
        kernel_doc("core-api/cpu_hotplug.rst"),
        group="cpu",
        places=one(f"{CPUS}/online"),
        read=word,
        fit=_all_present,
        advice="echo 1 > /sys/devices/system/cpu/cpuN/online, or find who took them away",
        severity="medium",
        effect="CPUs that were switched off and forgotten.",
    ),
    advice(
        "cpu.isolated",
        "CPUs that the scheduler leaves empty (isolcpus)",
        everywhere("equals", "none"),
        kernel_doc("admin-guide/kernel-parameters.txt: isolcpus"),
        group="cpu",
        places=one(f"{CPUS}/isolated"),
        read=_isolated,
        advice="pin the engine there (redline node pin), or drop isolcpus= from the boot arguments",
        severity="medium",
        effect="An engine that is not pinned never runs there, and its threads do not spread over isolated CPUs.",
    ),
    Tunable(
        id="cpu.clocksource",
        title="clock behind every time stamp",
        group="cpu",
        scope="host",
        places=one("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        read=word,
        wants=everywhere("one of", "tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page"),
        fit=_available_clock,
        persist="cmdline",
        persist_key="clocksource",
        risk=1,
        severity="medium",
        effect="With hpet, acpi_pm or xen every clock_gettime is a system call of 1 us, some thousand times per step.",
        signal="clock_gettime_ns",
        sources=(kernel_doc("timers/timekeeping.rst"),),
    ),
    advice(
        "cpu.tuned_profile",
        "TuneD's active profile",
        everywhere(
            "one of",
            "throughput-performance",
            "latency-performance",
            "network-latency",
            "network-throughput",
            "accelerator-performance",
            "hpc-compute",
            "virtual-guest",
            "redline",
        ),
        Source("tool", "TuneD 2.28 profiles", "2026-08"),
        group="cpu",
        places=lambda sys: [Place("/etc/tuned/active_profile")] if tuned_profiles(sys) else [],
        read=_tuned_profile,
        absent="TuneD does not run",
        advice="tuned-adm profile throughput-performance",
        severity="medium",
        effect="balanced and powersave undo the governor and the energy preference whenever they start.",
    ),
    advice(
        "sched.preempt",
        "preemption model",
        {
            "latency": want("one of", "full", "lazy", "voluntary"),
            "throughput": want("one of", "lazy", "voluntary", "none", "full"),
            "shared": want("one of", "full", "lazy", "voluntary"),
            "vm": want("one of", "full", "lazy", "voluntary"),
        },
        Source("kernel", "commit 7dadeaa6: only full and lazy are left since the 7.0 cycle", "2026-04"),
        GRACE,
        group="cpu",
        places=lambda _sys: [Place("/sys/kernel/debug/sched/preempt")],
        read=lambda sys, place: word(sys, place).partition("(")[2].partition(")")[0],
        advice="boot with preempt=lazy (voluntary before 6.13)",
        severity="info",
        effect="none lets a long system call hold a core for milliseconds (the Grace guide's preempt=none is stale).",
        signal="run_queue_ms",
    ),
    advice(
        "sched.realtime",
        "real-time kernel",
        everywhere("equals", 0),
        Source("issue", "NVIDIA/open-gpu-kernel-modules #1240 (open), #891", "2026-07"),
        group="cpu",
        places=one("/sys/kernel/realtime"),
        read=word,
        applies=no_gpu,
        absent="not a PREEMPT_RT kernel",
        advice="boot a standard kernel on GPU nodes",
        severity="high",
        effect="NVIDIA's driver refuses to build for PREEMPT_RT and crashes where that is forced.",
    ),
    sysctl(
        "kernel.nmi_watchdog",
        "hard-lockup watchdog",
        everywhere("equals", 0),
        _SYSCTL_KERNEL,
        GRACE,
        group="cpu",
        severity="info",
        effect="Frees a hardware counter for profilers and one interrupt per CPU and some seconds.",
    ),
    sysctl(
        "kernel.timer_migration",
        "timers move to busy CPUs",
        only_for("latency", op="equals", values=(0,)),
        tuned("network-latency"),
        group="cpu",
        severity="info",
        effect="Timers of idle CPUs do not end up on the core of the engine.",
    ),
    sysctl(
        "kernel.sched_autogroup_enabled",
        "one scheduling group per terminal session",
        everywhere("equals", 0),
        _SYSCTL_KERNEL,
        group="cpu",
        severity="info",
        effective=lambda sys, _place: (
            "services are in control groups of their own: autogroups are not used for them"
            if text(sys, "/proc/1/comm") == "systemd"
            else ""
        ),
        effect="A compile in one terminal and an engine in another get half of the CPU each, whatever their threads.",
    ),
)
