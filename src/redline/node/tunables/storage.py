"""Rows about disks and file systems: what a model is loaded from."""

from __future__ import annotations

import posixpath
from typing import Any

from redline.node.sys import Sys, text
from redline.node.tunables.find import Finder, bracketed, disks, number, of_disks, word
from redline.node.tunables.rows import advice, everywhere, kernel_doc, only_for, tuned, want
from redline.node.tunables.tunable import Place, Profile, Source, Tunable, Want

_QUEUE = kernel_doc("ABI/stable/sysfs-block, block/queue-sysfs.rst")
_LOAD = Source("measured", "vllm #24469, #36012: prefetch instead of lazy mmap, 1500 to 435 s for 671B", "2026-11")


def _folder(place: Place) -> str:
    return posixpath.dirname(place.path)


def _kind(sys: Sys, name: str) -> str:
    """nvme, virtual, ssd or disk."""
    if name.startswith("nvme"):
        return "nvme"
    if name.startswith(("vd", "xvd", "dm-", "md")):
        return "virtual"
    return "disk" if text(sys, f"/sys/block/{name}/queue/rotational") == "1" else "ssd"


def _scheduler_for(sys: Sys, place: Place, _want: Want) -> Want | None:
    kind = _kind(sys, place.name)
    listed = word(sys, place).replace("[", "").replace("]", "").split()
    order = {"nvme": ("none",), "virtual": ("none", "mq-deadline"), "ssd": ("none", "mq-deadline", "kyber")}
    usable = [name for name in order.get(kind, ("mq-deadline", "bfq")) if name in listed]
    return want("one of", *usable) if usable else None


def _is_default(sys: Sys, place: Place) -> str:
    """`none` on a drive with many queues is what the kernel picks itself."""
    queues = len(sys.names(f"/sys/block/{place.name}/mq"))
    if bracketed(sys, place) == "none" and (_kind(sys, place.name) == "nvme" or queues > 1):
        return "none is what the kernel picks itself for a drive with many queues: writing it changes nothing"
    listed = word(sys, place).split()
    return "the only choice that this kernel offers for the drive" if len(listed) == 1 else ""


def _one_queue_per_cpu(sys: Sys, place: Place) -> str:
    queues = sys.names(f"/sys/block/{place.name}/mq")
    shared = [
        queue
        for queue in queues
        if len((text(sys, f"/sys/block/{place.name}/mq/{queue}/cpu_list") or "").split(",")) > 1
    ]
    return "" if shared or not queues else "every CPU has a queue of its own: it completes there anyway"


def _mounts(sys: Sys) -> list[list[str]]:
    """device, mount point, type, options."""
    lines = [line.split() for line in (text(sys, "/proc/self/mounts") or "").splitlines()]
    seen: dict[str, list[str]] = {parts[1]: parts for parts in lines if len(parts) > 3}
    return list(seen.values())


def _of_mounts(*kinds: str) -> Finder:
    return lambda sys: [Place(parts[1], parts[1]) for parts in _mounts(sys) if parts[2].startswith(kinds)]


def _options(sys: Sys, place: Place) -> list[str]:
    return next((parts[3].split(",") for parts in _mounts(sys) if parts[1] == place.path), [])


def _option(sys: Sys, place: Place, name: str, missing: str) -> str:
    values = [each.partition("=")[2] for each in _options(sys, place) if each.partition("=")[0] == name]
    return values[-1] if values else missing


def _atime(sys: Sys, place: Place) -> str:
    options = _options(sys, place)
    return next((each for each in ("noatime", "relatime", "lazytime") if each in options), "strictatime")


def _discard(sys: Sys, place: Place) -> str:
    return "discard" if "discard" in _options(sys, place) else "none"


def _thin(sys: Sys, place: Place) -> str:
    device = next((parts[0] for parts in _mounts(sys) if parts[1] == place.path), "")
    return "a virtual disk: discarding gives space back to the host" if "/vd" in device or "/xvd" in device else ""


def _nfs_read_ahead(sys: Sys) -> list[Place]:
    """Each NFS mount's backing device, by the numbers in mountinfo."""
    found = []
    for line in (text(sys, "/proc/self/mountinfo") or "").splitlines():
        parts, _, after = line.partition(" - ")
        fields = parts.split()
        if after.startswith(("nfs", "nfs4")) and len(fields) > 4:
            path = f"/sys/class/bdi/{fields[2]}/read_ahead_kb"
            if sys.exists(path):
                found.append(Place(path, fields[4]))
    return found


_LOCAL = ("ext4", "xfs", "btrfs", "f2fs")


def _of_disks(
    id_: str, title: str, file: str, wants: dict[Profile, Want | None], *sources: Source, **more: Any
) -> Tunable:
    """A row about one file of each disk, kept by a udev rule."""
    settings: dict[str, Any] = {
        "group": "storage",
        "scope": "device",
        "places": of_disks(file),
        "read": word,
        "absent": "no disk that can be seen from here",
        "persist": "udev",
        "persist_key": file,
        **more,
    }
    return Tunable(id=id_, title=title, wants=wants, sources=sources, **settings)


STORAGE: tuple[Tunable, ...] = (
    _of_disks(
        "blk.scheduler",
        "I/O scheduler",
        "queue/scheduler",
        everywhere("one of", "none"),
        _QUEUE,
        read=bracketed,
        fit=_scheduler_for,
        effective=_is_default,
        owners=("tuned",),
        severity="low",
        effect="A fast drive orders requests better than the kernel; a scheduler costs CPU per request.",
        signal="block_latency_us",
    ),
    _of_disks(
        "blk.read_ahead",
        "read ahead of sequential reads, KiB",
        "queue/read_ahead_kb",
        everywhere("at least", 4096),
        _QUEUE,
        tuned("throughput-performance"),
        _LOAD,
        owners=("tuned",),
        risk=1,
        severity="medium",
        effect="Models loaded through mmap read 4 MiB at a time instead of 128 KiB; nothing for O_DIRECT loaders.",
        signal="load_s",
    ),
    _of_disks(
        "blk.rq_affinity",
        "CPU that completes an I/O",
        "queue/rq_affinity",
        everywhere("at least", 1),
        _QUEUE,
        effective=_one_queue_per_cpu,
        severity="info",
        effect="1: near the CPU that asked; 0: where the interrupt came.",
        signal="block_latency_us",
    ),
    _of_disks(
        "blk.max_sectors",
        "largest request, KiB",
        "queue/max_sectors_kb",
        everywhere("at least", 512),
        _QUEUE,
        fit=lambda sys, place, _want: want(
            "at least", min(512, number(sys, f"{_folder(place)}/max_hw_sectors_kb") or 512)
        ),
        severity="info",
        effect="Large reads are cut into few requests.",
        signal="load_s",
    ),
    _of_disks(
        "blk.iostats",
        "I/O statistics",
        "queue/iostats",
        everywhere("equals", 1),
        _QUEUE,
        severity="info",
        effect="Without them nobody sees what a model load waits for; the cost is a few ns per request.",
    ),
    advice(
        "nvme.power_latency",
        "NVMe power states allowed up to, us",
        only_for("latency", op="at most", values=(0,)),
        kernel_doc("admin-guide/kernel-parameters.txt: nvme_core.default_ps_max_latency_us"),
        group="storage",
        places=lambda sys: (
            [Place("/sys/module/nvme_core/parameters/default_ps_max_latency_us")]
            if any(name.startswith("nvme") for name in disks(sys))
            else []
        ),
        read=word,
        absent="no NVMe drive",
        advice="boot with nvme_core.default_ps_max_latency_us=0",
        persist="cmdline",
        persist_key="nvme_core.default_ps_max_latency_us",
        needs_reboot=True,
        risk=1,
        severity="info",
        effect="The first read after a pause does not wait for the drive to wake; data-centre drives rarely sleep.",
        signal="block_latency_us",
    ),
    advice(
        "fs.atime",
        "access times of local file systems",
        everywhere("one of", "noatime", "relatime", "lazytime"),
        Source("tool", "mount(8)", "2026-11"),
        group="storage",
        places=_of_mounts(*_LOCAL),
        read=_atime,
        absent="no local file system is mounted",
        advice="mount with relatime or noatime",
        effect="strictatime writes to the disk for every model file that is read.",
    ),
    advice(
        "fs.discard",
        "discard with every delete",
        everywhere("equals", "none"),
        Source("tool", "PerfSpect 3 insights; fstrim(8)", "2026-08"),
        group="storage",
        places=_of_mounts(*_LOCAL),
        read=_discard,
        applies=_thin,
        absent="no local file system is mounted",
        advice="mount without discard and enable fstrim.timer",
        severity="info",
        effect="Deleting an old model of hundreds of GB stalls reads of the new one on some drives.",
        signal="block_latency_us",
    ),
    Tunable(
        id="nfs.read_ahead",
        title="read ahead of NFS mounts, KiB",
        group="storage",
        scope="device",
        places=_nfs_read_ahead,
        read=word,
        wants=everywhere("at least", 15360),
        absent="nothing is mounted by NFS",
        advice="nfsrahead in /etc/nfs.conf keeps it for every mount",
        severity="high",
        effect="RHEL from 8.3 and Ubuntu give 128 KiB whatever rsize is: model loads wait for every round trip.",
        signal="load_s",
        sources=(Source("vendor", "Azure NetApp Files: Linux NFS read-ahead best practices", "2026-11"),),
    ),
    advice(
        "nfs.rsize",
        "bytes of one NFS read",
        everywhere("at least", 1048576),
        Source("tool", "nfs(5)", "2026-11"),
        group="storage",
        places=_of_mounts("nfs"),
        read=lambda sys, place: _option(sys, place, "rsize", "0"),
        absent="nothing is mounted by NFS",
        advice="mount with rsize=1048576",
        severity="medium",
        effect="Fewer round trips per shard.",
        signal="load_s",
    ),
    advice(
        "nfs.nconnect",
        "TCP connections of an NFS mount",
        only_for("latency", "throughput", "shared", op="at least", values=(4,)),
        Source("tool", "nfs(5): nconnect, since 5.3", "2026-11"),
        group="storage",
        places=_of_mounts("nfs"),
        read=lambda sys, place: _option(sys, place, "nconnect", "1"),
        absent="nothing is mounted by NFS",
        advice="mount with nconnect=8",
        severity="medium",
        effect="One TCP flow rarely fills a link of 25 Gbit/s and more.",
        signal="load_s",
    ),
)
