"""Memory facts: how much there is, how much this process may take, and how the kernel hands it out."""

from __future__ import annotations

from pathlib import Path

from redline.node.cgroup import memory_limit, memory_used
from redline.node.tree import Fact, chosen, fields, number, skipped, text

_THP = "sys/kernel/mm/transparent_hugepage"


def memory_facts(root: Path = Path("/")) -> Fact:
    """Sizes in bytes; `usable_bytes` is what is free for a new process under the tightest limit."""
    info = {name: _bytes(value) for name, value in fields(text(root, "proc/meminfo")).items()}
    limit = memory_limit(root)
    total, available = info.get("MemTotal", 0), info.get("MemAvailable", 0)
    if limit is not None and limit < total:
        usable = min(available, max(0, limit - (memory_used(root) or 0)))
    else:
        limit, usable = None, available
    return {
        "total_bytes": total,
        "available_bytes": available,
        "limit_bytes": limit,
        "usable_bytes": usable,
        "swap_total_bytes": info.get("SwapTotal", 0),
        "swap_used_bytes": info.get("SwapTotal", 0) - info.get("SwapFree", 0),
        "swappiness": number(root, "proc/sys/vm/swappiness"),
        "overcommit": number(root, "proc/sys/vm/overcommit_memory"),
        "numa_balancing": number(root, "proc/sys/kernel/numa_balancing"),
        "transparent_hugepages": _transparent(root),
        "hugepages": _hugepages(root),
    }


def _bytes(value: str) -> int:
    size, _, unit = value.partition(" ")
    return int(size) * (1024 if unit == "kB" else 1) if size.isdigit() else 0


def _transparent(root: Path) -> Fact:
    enabled = chosen(text(root, f"{_THP}/enabled"))
    if enabled is None:
        return skipped("this kernel has none", "a kernel with CONFIG_TRANSPARENT_HUGEPAGE")
    return {"enabled": enabled, "defrag": chosen(text(root, f"{_THP}/defrag"))}


def _hugepages(root: Path) -> dict[str, Fact]:
    """Reserved pages by size."""
    found = {}
    for folder in sorted((root / "sys/kernel/mm/hugepages").glob("hugepages-*")):
        counts = {name: number(folder, f"{name}_hugepages") for name in ("nr", "free")}
        found[folder.name.removeprefix("hugepages-")] = counts
    return found
