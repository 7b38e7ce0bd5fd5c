"""What this process may use: control groups (v1, v2 and both at once) limit it below what the box has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from redline.node.tree import number, text

UNLIMITED_BYTES = 1 << 60  # v1 says "no limit" with a number near 2^63


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Cores that the tightest quota up the tree allows; None without a quota."""
    limits = []
    for folder in _folders(root, "cpu"):
        quota, _, period = (text(root, f"{folder}/cpu.max") or "").partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
        old_quota, old_period = number(root, f"{folder}/cpu.cfs_quota_us"), number(root, f"{folder}/cpu.cfs_period_us")
        if old_quota and old_quota > 0 and old_period:
            limits.append(old_quota / old_period)
    return min(limits, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that the tightest limit up the tree allows; None without a limit."""
    limits = []
    for folder in _folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = number(root, f"{folder}/{name}")
            if limit is not None and limit < UNLIMITED_BYTES:
                limits.append(limit)
    return min(limits, default=None)


def memory_used(root: Path = Path("/")) -> int | None:
    """Bytes in use in the group that carries the tightest limit, page cache that can be dropped left out."""
    tightest: tuple[int, str] | None = None
    for folder in _folders(root, "memory"):
        limit = number(root, f"{folder}/memory.max") or number(root, f"{folder}/memory.limit_in_bytes")
        if limit is not None and limit < UNLIMITED_BYTES and (tightest is None or limit < tightest[0]):
            tightest = limit, folder
    if tightest is None:
        return None
    folder = tightest[1]
    used = number(root, f"{folder}/memory.current") or number(root, f"{folder}/memory.usage_in_bytes")
    lines = (text(root, f"{folder}/memory.stat") or "").splitlines()
    stat = dict(line.split(" ", 1) for line in lines if " " in line)
    cache = int(stat.get("inactive_file") or stat.get("total_inactive_file") or 0)
    return None if used is None else max(0, used - cache)


def group_limits(root: Path = Path("/")) -> dict[str, str]:
    """What stands in the limit files of this process's own group, by file name; `max` and what is not there left out.

    Of limits that count up the tree the tightest is in `cpu_limit` and `memory_limit`."""
    found: dict[str, str] = {}
    for controller, names in _LIMITS.items():
        folder = next(_folders(root, controller), None)
        for name in names if folder else ():
            value = text(root, f"{folder}/{name}")
            if value and value not in ("max", "-1") and not (value.isdigit() and int(value) >= UNLIMITED_BYTES):
                found.setdefault(name, value)
    return found


_LIMITS = {
    "cpu": ("cpu.max", "cpu.weight", "cpu.cfs_quota_us", "cpu.shares"),
    "cpuset": ("cpuset.cpus.effective", "cpuset.mems.effective", "cpuset.cpus", "cpuset.mems"),
    "memory": ("memory.max", "memory.high", "memory.low", "memory.swap.max", "memory.limit_in_bytes"),
    "pids": ("pids.max",),
    "hugetlb": ("hugetlb.2MB.max", "hugetlb.1GB.max", "hugetlb.2MB.limit_in_bytes", "hugetlb.1GB.limit_in_bytes"),
}
"""By controller: v2's files and v1's."""


def throttled_s(root: Path = Path("/")) -> float | None:
    """Seconds for which the quota has kept this group's threads waiting so far."""
    for folder in _folders(root, "cpu"):
        lines = (text(root, f"{folder}/cpu.stat") or "").splitlines()
        stat = dict(line.split(" ", 1) for line in lines if " " in line)
        if "throttled_usec" in stat:
            return int(stat["throttled_usec"]) / 1e6
        if "throttled_time" in stat:
            return int(stat["throttled_time"]) / 1e9
    return None


def _folders(root: Path, controller: str) -> Iterator[str]:
    """This process's group and all above it, as paths under `root`, for v1 and v2."""
    for line in (text(root, "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:  # v2, alone or beside v1
            unified = (root / "sys/fs/cgroup/unified").is_dir()
            yield from _upwards(root, "sys/fs/cgroup/unified" if unified else "sys/fs/cgroup", group)
        elif controller in controllers.split(","):
            mounts = (f"sys/fs/cgroup/{controllers}", f"sys/fs/cgroup/{controller}")
            mount = next((mount for mount in mounts if (root / mount).is_dir()), None)
            if mount:
                yield from _upwards(root, mount, group)


def _upwards(root: Path, mount: str, group: str) -> Iterator[str]:
    """`group` and its ancestors. In a container the path may be the host's, of which only the mount's root is seen."""
    inside = PurePosixPath(group.lstrip("/"))
    for part in (inside, *inside.parents):
        folder = f"{mount}/{part}" if str(part) != "." else mount
        if ".." not in part.parts and (root / folder).is_dir():
            yield folder
