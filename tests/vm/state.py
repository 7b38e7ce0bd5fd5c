"""Runs inside of the machine, with Debian's Python and nothing of redline's: all that a change could have touched, as
JSON, path by path. The host compares two such states and names what differs."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

LIVE = (
    "/proc/cmdline",
    "/sys/kernel/mm/transparent_hugepage/**/*",
    "/sys/kernel/mm/ksm/[!pf]*",
    "/sys/kernel/mm/hugepages/*/nr_*",
    "/sys/devices/system/node/node*/hugepages/*/nr_hugepages",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    "/sys/block/*/queue/**/*",
    "/sys/class/net/*/mtu",
    "/sys/class/net/*/queues/*/[rx]ps_*",
    "/sys/module/pcie_aspm/parameters/policy",
    "/sys/module/nvme_core/parameters/*",
    "/sys/devices/virtual/workqueue/cpumask",
)
# counters, and what a boot reckons from the memory that happens to be free then
VOLATILE = re.compile(
    r"/proc/sys/(kernel/random/|kernel/ns_last_pid|kernel/pty/nr|kernel/tainted|fs/(dentry-state|inode-|file-nr|aio-nr)"
    r"|fs/binfmt_misc/|fs/quota/|vm/(stat_refresh|user_reserve_kbytes)|net/.*(stable_secret|fastopen_key|nf_conntrack_count)|kernel/seccomp)"
    r"|/sys/kernel/mm/ksm/(full_scans|stable_node)|/khugepaged/(full_scans|pages_collapsed)$|/dax$|/zoned$"
)
FILES = ("/etc", "/boot", "/usr/lib/sysctl.d", "/usr/lib/tmpfiles.d", "/usr/lib/udev", "/usr/lib/systemd")


def live(interrupts: bool) -> dict[str, str]:
    """Values as text."""
    found = {}
    paths = set(Path("/proc/sys").rglob("*"))
    paths |= {path for pattern in LIVE for path in Path("/").glob(pattern.lstrip("/"))}
    paths |= set(Path("/proc/irq").glob("*/smp_affinity_list")) if interrupts else set()
    for path in sorted(paths):
        if VOLATILE.search(str(path)) or not path.is_file() or not path.stat().st_mode & 0o444:
            continue
        try:
            found[str(path)] = path.read_bytes().decode("latin-1").strip()
        except OSError as error:
            found[str(path)] = f"error {error.errno}"
    return found


def files(bare: bool) -> dict[str, str]:
    """Kind, mode, owner and content (a digest) of every entry; `bare`: without the line that says who wrote it."""
    found = {}
    for root in map(Path, FILES):
        for path in [root, *root.rglob("*")]:
            at = path.lstat()
            if path.is_symlink():
                content = str(path.readlink())
            elif path.is_file():
                data = path.read_bytes()
                data = re.sub(rb"# Written by `redline node .*\n", b"", data) if bare else data
                content = hashlib.sha256(data).hexdigest()
            else:
                content = "folder"
            found[str(path)] = f"{at.st_mode:o} {at.st_uid}:{at.st_gid} {content}"
    return found


if __name__ == "__main__":
    json.dump(
        {"live": live("--interrupts" in sys.argv), "files": files("--bare" in sys.argv)}, sys.stdout, sort_keys=True
    )
