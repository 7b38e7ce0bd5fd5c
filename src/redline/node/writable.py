"""Why a value could not be changed from here, found by reading only: mounts, modes, lockdown, capabilities."""

from __future__ import annotations

from redline.node.sys import Sys, text
from redline.node.tree import chosen, fields
from redline.node.tunables.tunable import Place, Tunable

_LOCKED = ("/sys/kernel/debug/", "/dev/mem", "/dev/cpu/")
CAPABILITIES = {"SETPCAP": 8, "NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_NICE": 23, "SYS_RESOURCE": 24}


def blocked(sys: Sys, tunable: Tunable, place: Place) -> str:
    """'' when root could write it here."""
    if tunable.needs_reboot and (why := no_boot_loader(sys)):
        return why
    if why := tunable.unwritable(sys, place):
        return why
    if tunable.write == "none":
        return ""
    if why := locked_down(sys, place.path):
        return why
    if mount := readonly_mount(sys, place.path):
        return f"{mount} is mounted read-only here" + (": set it on the host" if in_container(sys) else "")
    stat = sys.stat(place.path)
    if stat is not None and not stat.mode & 0o222 and sys.kind == "live":
        return "the kernel offers it for reading only"
    if sys.user_is_root() and not has_capability(sys, "SYS_ADMIN") and place.path.startswith("/sys/"):
        return "root without CAP_SYS_ADMIN: set it on the host"
    return ""


def locked_down(sys: Sys, path: str) -> str:
    """Why the kernel keeps `path` shut even for root; '' when it does not. Debugfs is shut for reading, too."""
    lockdown = chosen(text(sys, "/sys/kernel/security/lockdown"))
    shut = lockdown in ("integrity", "confidentiality") and path.startswith(_LOCKED)
    return f"kernel lockdown ({lockdown}) keeps it shut" if shut else ""


def readonly_mount(sys: Sys, path: str) -> str:
    """The mount point that holds `path`, when it is mounted read-only; else ''."""
    best, options = "", ""
    for line in (text(sys, "/proc/self/mounts") or "").splitlines():
        parts = line.split()
        if len(parts) < 4:
            continue
        point = parts[1].rstrip("/")
        if (path == point or path.startswith(point + "/")) and len(point) >= len(best):
            best, options = point, parts[3]
    return (best or "/") if "ro" in options.split(",") else ""


def has_capability(sys: Sys, name: str) -> bool:
    """Whether this process has it. A box that does not tell has it: a write then says the truth."""
    effective = fields(text(sys, "/proc/self/status")).get("CapEff")
    return effective is None or bool(int(effective, 16) >> CAPABILITIES[name] & 1)


def in_container(sys: Sys) -> str:
    """What kind of container this is, '' for none. A virtual machine made from a container image has a disk as root."""
    root = next(
        (line for line in (text(sys, "/proc/self/mounts") or "").splitlines() if line.split()[1:2] == ["/"]), ""
    )
    if root.startswith("/dev/"):
        return ""
    if sys.exists("/var/run/secrets/kubernetes.io"):
        return "kubernetes"
    if sys.exists("/.dockerenv"):
        return "docker"
    return "podman" if sys.exists("/run/.containerenv") else ""


def is_virtual(sys: Sys) -> bool:
    """Whether a hypervisor is below."""
    flags = (fields(text(sys, "/proc/cpuinfo")).get("flags") or "").split()
    return "hypervisor" in flags or sys.exists("/sys/hypervisor/type")


BOOT_LOADERS = (
    "/etc/default/grub",
    "/etc/default/grub.d",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/etc/kernel/cmdline",
    "/boot/loader/entries",
)


def no_boot_loader(sys: Sys) -> str:
    """Why boot arguments cannot be set from here; '' when a boot loader is configured."""
    if in_container(sys):
        return "a container does not boot: set it on the host"
    if any(sys.exists(path) for path in BOOT_LOADERS):
        return ""
    return "no boot loader is configured here: whoever starts this machine gives its boot arguments"
