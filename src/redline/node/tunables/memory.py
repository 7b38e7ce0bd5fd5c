"""Rows about memory: huge pages, reclaim, write-back, mappings."""

from __future__ import annotations

import posixpath

from redline.node.sys import Sys, text
from redline.node.tunables.find import bracketed, each, memory_kib, number, one
from redline.node.tunables.rows import advice, everywhere, kernel_doc, only_for, sysctl, sysfs, tuned, want
from redline.node.tunables.tunable import AT_START, Place, Reason, Source, Tunable, Want

_THP = "/sys/kernel/mm/transparent_hugepage"
_SYSCTL_VM = kernel_doc("admin-guide/sysctl/vm.rst")
_THP_DOC = kernel_doc("admin-guide/mm/transhuge.rst")
_TRT = Source("issue", "NVIDIA/TensorRT-LLM #15430, #15431", "2026-11")


def _no_swap(sys: Sys, _place: Place) -> str:
    swaps = (text(sys, "/proc/swaps") or "").splitlines()
    return "" if len(swaps) > 1 else "no swap device: anonymous memory is never swapped"


def _used_pages(sys: Sys, place: Place, _want: Want) -> Want:
    """As many as are in use."""
    folder = posixpath.dirname(place.path)
    total, free = number(sys, place.path) or 0, number(sys, f"{folder}/free_hugepages") or 0
    return want("at most", max(total - free, 0))


def _nobody_maps(sys: Sys, place: Place) -> str:
    folder = posixpath.dirname(place.path)
    total, free = number(sys, place.path) or 0, number(sys, f"{folder}/free_hugepages") or 0
    if not total or free < total:
        return ""
    size = int(posixpath.basename(folder).removeprefix("hugepages-").removesuffix("kB"))
    mib = total * size >> 10
    kept = f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib} MiB"
    return f"no process maps one: {kept} are kept from the page cache and from everything else"


def _huge(size: str, kib: int) -> Tunable:
    return sysfs(
        f"hugepages.{size}",
        f"reserved huge pages of {size.upper()}, per node",
        each(f"/sys/devices/system/node/node*/hugepages/hugepages-{kib}kB/nr_hugepages", part=5),
        everywhere("at most", 0),
        kernel_doc("admin-guide/mm/hugetlbpage.rst"),
        Source("issue", "vllm-project/vllm #45693 (open)", "2026-11"),
        group="memory",
        scope="device",
        fit=_used_pages,
        effective=_nobody_maps,
        absent="this kernel has no pages of this size",
        persist_key="nr_hugepages",
        owners=("tuned",),
        risk=2,
        severity="medium",
        effect="Only DPDK- and SPDK-like stacks map them today; for everything else they are memory that is gone.",
        signal="free_hugepages",
        tags=frozenset({AT_START}),
    )


def _other_form(bytes_file: str) -> Reason:
    def reason(sys: Sys, _place: Place) -> str:
        given = number(sys, f"/proc/sys/vm/{bytes_file}")
        return f"vm.{bytes_file} is in force ({given})" if given else ""

    return reason


def _not_in_force(sys: Sys, place: Place) -> str:
    return "" if number(sys, place.path) else "0: the ratio is in force"


def _min_free(sys: Sys, _place: Place, _want: Want) -> Want | None:
    gib = memory_kib(sys) >> 20
    return want("at least", 1 << 20) if gib >= 400 else None


def _shm_kib(sys: Sys, place: Place) -> str:
    """Size of /dev/shm in KiB; half of the memory where the mount does not say."""
    for line in (text(sys, "/proc/self/mounts") or "").splitlines():
        parts = line.split()
        if len(parts) > 3 and parts[1] == place.path:
            for option in parts[3].split(","):
                if option.startswith("size="):
                    size = option.removeprefix("size=")
                    unit = {"k": 1, "m": 1 << 10, "g": 1 << 20}.get(size[-1])
                    return str(int(size[:-1]) * unit) if unit else str(int(size) >> 10)
            return str(memory_kib(sys) // 2)
    return "0"


def _swap_mib(sys: Sys, _place: Place) -> str:
    lines = [line.split() for line in (text(sys, "/proc/swaps") or "").splitlines()[1:]]
    return str(sum(int(parts[2]) for parts in lines if len(parts) > 2) >> 10)


MEMORY: tuple[Tunable, ...] = (
    sysfs(
        "thp.enabled",
        "transparent huge pages",
        one(f"{_THP}/enabled"),
        everywhere("equals", "madvise"),
        _THP_DOC,
        tuned("network-latency (never), hpc-compute (always): they disagree, so measure"),
        group="memory",
        read=bracketed,
        absent="this kernel is built without them",
        persist_key="enabled",
        owners=("tuned",),
        risk=1,
        severity="medium",
        effect="always: page faults stall while pages are zeroed and memory bloats; never: pools that ask get none.",
        signal="thp_faults",
        tags=frozenset({AT_START}),
    ),
    sysfs(
        "thp.defrag",
        "what a fault does when no huge page is free",
        one(f"{_THP}/defrag"),
        {
            "latency": want("one of", "defer", "never"),
            "throughput": want("one of", "defer", "never"),
            "shared": want("one of", "defer", "never", "defer+madvise"),
            "vm": want("one of", "defer", "never"),
        },
        _TRT,
        _THP_DOC,
        group="memory",
        read=bracketed,
        effective=lambda sys, _place: (
            "transparent huge pages are off" if bracketed(sys, Place(f"{_THP}/enabled")) == "never" else ""
        ),
        persist_key="defrag",
        owners=("tuned",),
        risk=1,
        severity="medium",
        effect="With madvise every fault of a big pinned pool may compact memory: GB/s become GB/min.",
        signal="compact_stall",
        tags=frozenset({AT_START}),
    ),
    sysfs(
        "thp.khugepaged_defrag",
        "khugepaged compacts in the background",
        one(f"{_THP}/khugepaged/defrag"),
        only_for("latency", op="equals", values=(0,)),
        _THP_DOC,
        group="memory",
        effective=lambda sys, _place: (
            "transparent huge pages are off" if bracketed(sys, Place(f"{_THP}/enabled")) == "never" else ""
        ),
        persist_key="khugepaged/defrag",
        severity="info",
        effect="Moves pages under running processes; each move costs a TLB shootdown.",
        signal="compact_daemon_wake",
    ),
    sysctl(
        "vm.swappiness",
        "how readily anonymous memory is swapped",
        everywhere("at most", 10),
        _SYSCTL_VM,
        tuned("throughput-performance"),
        group="memory",
        effective=_no_swap,
        severity="medium",
        effect="Keeps the engine's host memory in RAM while the page cache of model files grows.",
        signal="pswpout",
    ),
    sysctl(
        "vm.dirty_ratio",
        "dirty memory at which writers are stopped, %",
        {
            "latency": want("at most", 10),
            "throughput": want("at most", 40),
            "shared": want("at most", 20),
            "vm": want("at most", 20),
        },
        _SYSCTL_VM,
        tuned("latency-performance (10 / 3)"),
        group="memory",
        applies=_other_form("dirty_bytes"),
        coupled=("vm.dirty_bytes",),
        risk=1,
        effect="Checkpoints and logs stop their writers earlier and for shorter.",
        signal="dirty_kib",
    ),
    sysctl(
        "vm.dirty_background_ratio",
        "dirty memory at which write-back begins, %",
        {
            "latency": want("at most", 3),
            "throughput": want("at most", 10),
            "shared": want("at most", 10),
            "vm": want("at most", 10),
        },
        _SYSCTL_VM,
        tuned("latency-performance (10 / 3)"),
        group="memory",
        applies=_other_form("dirty_background_bytes"),
        coupled=("vm.dirty_background_bytes",),
        effect="Write-back begins earlier and comes in smaller bursts.",
        signal="dirty_kib",
    ),
    sysctl(
        "vm.dirty_bytes",
        "dirty memory at which writers are stopped, bytes",
        everywhere("at least", 256 << 20),
        _SYSCTL_VM,
        group="memory",
        applies=_not_in_force,
        coupled=("vm.dirty_ratio",),
        effect="A limit far below what a disk writes in a second stalls every writer.",
        signal="dirty_kib",
    ),
    sysctl(
        "vm.dirty_background_bytes",
        "dirty memory at which write-back begins, bytes",
        everywhere("at least", 64 << 20),
        _SYSCTL_VM,
        group="memory",
        applies=_not_in_force,
        coupled=("vm.dirty_background_ratio",),
        effect="A limit far below what a disk writes in a second keeps the disk busy with small writes.",
        signal="dirty_kib",
    ),
    sysctl(
        "vm.min_free_kbytes",
        "memory kept free for the kernel, KiB",
        everywhere("at least", 1 << 20),
        _SYSCTL_VM,
        tuned("hpc-compute (135168)"),
        group="memory",
        fit=_min_free,
        risk=1,
        effect="On boxes of 400 GiB and more: bursts of network and DMA allocations find free pages without reclaim.",
        signal="allocstall",
    ),
    sysctl(
        "vm.max_map_count",
        "memory mappings a process may have",
        everywhere("at least", 1048576),
        _SYSCTL_VM,
        group="memory",
        tags=frozenset({AT_START}),
        severity="medium",
        effect="Many mapped shards, CUDA's allocator and many workers run out of 65530: ENOMEM.",
    ),
    sysctl(
        "vm.overcommit_memory",
        "whether address space must be backed",
        everywhere("one of", 0, 1),
        _SYSCTL_VM,
        group="memory",
        tags=frozenset({AT_START}),
        severity="high",
        effect="2 refuses the terabytes of address space that CUDA reserves without using: engines do not start.",
    ),
    sysctl(
        "vm.compaction_proactiveness",
        "background compaction",
        only_for("latency", op="equals", values=(0,)),
        _SYSCTL_VM,
        group="memory",
        severity="info",
        effect="Less page moving under running processes. With huge pages in heavy use it may hurt: measure.",
        signal="compact_daemon_wake",
    ),
    sysctl(
        "vm.vfs_cache_pressure",
        "how readily directory entries are forgotten",
        everywhere("at most", 100),
        _SYSCTL_VM,
        group="memory",
        severity="info",
        effect="Above 100 the entries of model folders are dropped before page cache is.",
    ),
    sysctl(
        "vm.stat_interval",
        "seconds between the kernel's counts of memory statistics",
        only_for("latency", op="at least", values=(10,)),
        _SYSCTL_VM,
        tuned("network-latency"),
        group="memory",
        severity="info",
        effect="One timer less per second on every CPU.",
    ),
    _huge("2m", 2048),
    _huge("1g", 1048576),
    advice(
        "mem.swap",
        "swap devices, MiB",
        only_for("latency", "throughput", op="at most", values=(0,)),
        Source("tool", "NVIDIA/deepops (swapoff), Kubernetes kubelet failSwapOn", "2026-08"),
        group="memory",
        places=one("/proc/swaps"),
        read=_swap_mib,
        advice="swapoff -a and take it out of /etc/fstab, or give the engine's slice MemorySwapMax=0",
        effect="A swapped page of a worker stalls a whole tensor-parallel step.",
        signal="pswpin",
    ),
    advice(
        "mem.dev_shm",
        "size of /dev/shm, KiB",
        everywhere("at least", 1 << 20),
        Source(
            "vendor", "NCCL troubleshooting: shared memory; vLLM docs, deployment/docker.md (--ipc=host)", "2026-10"
        ),
        group="memory",
        places=one("/dev/shm"),
        read=_shm_kib,
        advice="docker run --shm-size=8g or --ipc=host; in Kubernetes an emptyDir with medium: Memory",
        severity="high",
        effect="Tensor-parallel workers and NCCL pass data through it; a container's 64 MB make them crash or hang.",
    ),
    sysfs(
        "mem.ksm",
        "kernel samepage merging",
        one("/sys/kernel/mm/ksm/run"),
        everywhere("equals", 0),
        kernel_doc("admin-guide/mm/ksm.rst"),
        group="memory",
        absent="this kernel is built without it",
        persist_key="run",
        severity="low",
        risk=1,
        effect="A thread that scans memory for equal pages: CPU that the engine needs, and page faults on write.",
        signal="ksmd_cpu",
    ),
)
