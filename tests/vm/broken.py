"""A server as one finds it: what is wrong in it, how it came to be so, and what redline is expected to make of it."""

from __future__ import annotations

from dataclasses import dataclass

_VM, _NET = "/proc/sys/vm", "/proc/sys/net"
_THP, _NVME = "/sys/kernel/mm/transparent_hugepage", "/sys/block/nvme0n1/queue"


@dataclass(frozen=True)
class Broken:
    """`broken` and `right` as a read of `path` gives them, of a choice the bracketed word alone."""

    id: str
    path: str
    broken: str
    right: str
    by: str


SYSCTL, LATE, TMPFILES = (
    "/etc/sysctl.d/50-old-guide.conf",
    "/etc/sysctl.d/99-zz-vendor.conf",
    "/etc/tmpfiles.d/old.conf",
)
UDEV, NETWORK = "/etc/udev/rules.d/60-old-disks.rules", "/etc/systemd/network/20-fabric.network"
GRUB, PAGES = "/etc/default/grub.d/50-old.cfg", "/etc/systemd/system/pages.service"
FIGHTS = "/etc/tuned/fights/tuned.conf"
TWO_MIB = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"

SETTINGS = (
    Broken("vm.swappiness", f"{_VM}/swappiness", "100", "10", SYSCTL),
    Broken("vm.zone_reclaim_mode", f"{_VM}/zone_reclaim_mode", "1", "0", SYSCTL),
    Broken("kernel.numa_balancing", "/proc/sys/kernel/numa_balancing", "1", "0", SYSCTL),
    Broken("vm.dirty_bytes", f"{_VM}/dirty_bytes", "16777216", "268435456", SYSCTL),
    Broken("vm.max_map_count", f"{_VM}/max_map_count", "65530", "1048576", SYSCTL),
    # below 524288 logind and sshd would not start
    Broken("fs.nr_open", "/proc/sys/fs/nr_open", "600000", "1048576", SYSCTL),
    Broken("net.core.somaxconn", f"{_NET}/core/somaxconn", "128", "65535", SYSCTL),
    Broken("net.ipv4.tcp_syncookies", f"{_NET}/ipv4/tcp_syncookies", "0", "1", SYSCTL),
    Broken("net.ipv4.tcp_sack", f"{_NET}/ipv4/tcp_sack", "0", "1", SYSCTL),
    Broken("vm.vfs_cache_pressure", f"{_VM}/vfs_cache_pressure", "500", "100", FIGHTS),
    Broken("net.core.busy_read", f"{_NET}/core/busy_read", "50", "0", LATE),
    Broken("thp.enabled", f"{_THP}/enabled", "always", "madvise", TMPFILES),
    Broken("thp.defrag", f"{_THP}/defrag", "always", "defer", TMPFILES),
    Broken("mem.ksm", "/sys/kernel/mm/ksm/run", "1", "0", TMPFILES),
    Broken("hugepages.2m", TWO_MIB, "6", "1", TMPFILES),
    Broken("blk.scheduler", f"{_NVME}/scheduler", "mq-deadline", "none", UDEV),
    Broken("blk.read_ahead", f"{_NVME}/read_ahead_kb", "16", "4096", UDEV),
    Broken("blk.iostats", f"{_NVME}/iostats", "0", "1", UDEV),
    Broken("net.mtu", "/sys/class/net/fabric/mtu", "1400", "9000", NETWORK),
    Broken("boot.psi", "/proc/cmdline", "psi=0", "psi=1", GRUB),
)
IDS = tuple(dict.fromkeys(one.id for one in SETTINGS))


def _sysctls(path: str) -> str:
    lines = [one for one in SETTINGS if one.by == path]
    return "".join(f"{one.path.removeprefix('/proc/sys/').replace('/', '.')} = {one.broken}\n" for one in lines)


def _tmpfiles() -> str:
    return "".join(f"w {one.path} - - - - {one.broken}\n" for one in SETTINGS if one.by == TMPFILES)


def _rules() -> str:
    attributes = [(one.path.removeprefix(f"{_NVME}/"), one.broken) for one in SETTINGS if one.by == UDEV]
    terms = "".join(f', ATTR{{queue/{name}}}="{value}"' for name, value in attributes)
    return f'ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="nvme0n1"{terms}\n'


_ONE_PAGE = (
    "import ctypes, mmap, time; m = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000);"
    " m[0] = 1; time.sleep(1 << 30)"
)

FILES = {
    # a low reserve, which the kernel raises by itself when huge pages are switched
    SYSCTL: _sysctls(SYSCTL) + "vm.min_free_kbytes = 8000\n",
    LATE: _sysctls(LATE),
    TMPFILES: _tmpfiles(),
    UDEV: _rules(),
    NETWORK: "[Match]\nName=fabric\n[Link]\nMTUBytes=1400\n[Network]\nAddress=10.99.0.1/24\n"
    "ConfigureWithoutCarrier=yes\nLinkLocalAddressing=no\n",
    # the card that ssh comes in by: whether its frames are full changes with what was sent, so it has nothing to change
    "/etc/systemd/network/10-access.network": "[Match]\nName=access\n[Link]\nMTUBytes=9000\n[Network]\nDHCP=ipv4\n",
    GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT psi=0"\n',
    "/etc/security/limits.d/old.conf": "root - nofile 256\n",
    FIGHTS: "[main]\nsummary=A profile that fights\n[sysctl]\nvm.vfs_cache_pressure=500\n",
    "/etc/tuned/active_profile": "fights\n",
    "/etc/tuned/profile_mode": "manual\n",
    PAGES: "[Unit]\nAfter=systemd-tmpfiles-setup.service\n[Service]\n"
    f"ExecStart=/usr/bin/numactl --cpunodebind=1 --membind=1 /usr/bin/python3 -c '{_ONE_PAGE}'\n"
    "[Install]\nWantedBy=multi-user.target\n",
}
AFTERWARDS = "systemctl -q enable pages tuned irqbalance; update-grub 2>&1; sync"
