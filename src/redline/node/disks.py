"""Disks: size, kind, request scheduler, read-ahead, and the NUMA node they hang on."""

from __future__ import annotations

import re
from typing import Any

from redline.node.pci import DEVICES, addresses_in, node_of
from redline.node.sys import Sys, text
from redline.node.tree import Fact, chosen

BLOCK = "/sys/block"
_NO_DISKS = re.compile(r"(loop|ram|zram|sr|fd|nbd)\d+")
SECTOR = 512
"""sysfs counts in these, whatever the disk's own sectors are."""


def disk_facts(sys: Sys) -> list[Fact]:
    """One entry per disk, logical volumes and RAIDs included, partitions and pseudo-disks not."""
    return [_disk(sys, name) for name in sys.names(BLOCK) if not _NO_DISKS.fullmatch(name)]


def _disk(sys: Sys, name: str) -> Fact:
    folder = f"{BLOCK}/{name}"
    queue = f"{folder}/queue"
    where = addresses_in(sys.link(folder) or "")
    return {
        "name": name,
        "kind": _kind(sys, name),
        "model": text(sys, f"{folder}/device/model"),
        "bytes": (number(sys, f"{folder}/size") or 0) * SECTOR,
        "rotational": bool(number(sys, f"{queue}/rotational")),
        "scheduler": chosen(text(sys, f"{queue}/scheduler")),
        "schedulers": (text(sys, f"{queue}/scheduler") or "").replace("[", "").replace("]", "").split(),
        "read_ahead_kb": number(sys, f"{queue}/read_ahead_kb"),
        "requests": number(sys, f"{queue}/nr_requests"),
        "pci_address": where[-1] if where else None,
        "node": node_of(sys, f"{DEVICES}/{where[-1]}") if where else None,
        "parts": sys.names(f"{folder}/slaves"),
    }


def _kind(sys: Sys, name: str) -> str:
    if name.startswith("dm-"):
        return "device mapper"
    for start, kind in (("nvme", "nvme"), ("md", "raid"), ("vd", "virtio"), ("xvd", "xen"), ("mmcblk", "mmc")):
        if name.startswith(start):
            return kind
    return "scsi" if name.startswith("sd") else "other"


def number(sys: Sys, path: str) -> int | None:
    content: Any = text(sys, path)
    try:
        return int(content)
    except (TypeError, ValueError):
        return None
