"""A box in a folder, small: a few settings that drift, and the files of one distribution."""

from __future__ import annotations

import hashlib
from pathlib import Path

from redline.node.fake import Box, FakeSys
from redline.node.tunables.rows import everywhere, sysctl
from redline.node.tunables.tunable import Source, Tunable

THP = "/sys/kernel/mm/transparent_hugepage/enabled"
SOURCE = Source("kernel", "Documentation/admin-guide", "2026-10")
ATTRIBUTES = {
    "/proc/sys/vm/swappiness": "60",
    "/proc/sys/vm/max_map_count": "65530",
    "/proc/sys/vm/dirty_ratio": "20",
    "/proc/sys/vm/dirty_bytes": "0",
    "/proc/swaps": "Filename Type Size Used Priority\n/swap file 1000 0 -2",
    "/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet",
    THP: "[always] madvise never",
    "/sys/class/net/eth0/mtu": "1500",
    "/sys/block/nvme0n1/queue/scheduler": "none [mq-deadline]",
}
DEBIAN = {
    "/etc/os-release": "ID=debian\nVERSION_ID=12",
    "/etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"',
    "/boot/grub/grub.cfg": "linux /vmlinuz quiet",
    "/etc/sysctl.d/README": "nothing",
    "/lib/systemd/systemd-sysctl": "",
}


def put(root: Path, files: dict[str, str]) -> None:
    for path, content in files.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content + "\n")


def folder_box(root: Path, files: dict[str, str] | None = None, **box: object) -> FakeSys:
    """Attributes above, `files` (Debian's when not given), and what `Box` says of the rest."""
    put(root, ATTRIBUTES)
    put(root, DEBIAN if files is None else files)
    return FakeSys(root, Box(**box))  # type: ignore[arg-type]


def state_hash(root: Path) -> str:
    """Every path, byte, mode and owner below `root`, without the journals."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and "var/lib/redline" not in str(path):
            stat = path.stat()
            total.update(f"{path.relative_to(root)} {stat.st_mode} {stat.st_uid} {stat.st_gid} ".encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def row(key: str, value: str, **more: object) -> Tunable:
    """A sysctl that shall equal `value`."""
    return sysctl(key, key, everywhere("equals", value), SOURCE, group="memory", **more)
