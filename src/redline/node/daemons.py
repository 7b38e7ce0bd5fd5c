"""Which daemons that change settings behind one's back run here, and what TuneD's active profile would set."""

from __future__ import annotations

import configparser

from redline.node.sys import Sys, text

_PID_FILES = {
    "irqbalance": ("/run/irqbalance.pid", "/run/irqbalance/irqbalance.pid"),
    "tuned": ("/run/tuned/tuned.pid",),
}
_PROFILE_FOLDERS = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
_SYSFS_OF_TUNED = {
    "scaling_governor": ("cpu", "governor"),
    "energy_performance_preference": ("cpu", "energy_performance_preference"),
    "no_turbo": ("cpu", "no_turbo"),
    "enabled": ("vm", "transparent_hugepages"),
    "defrag": ("vm", "transparent_hugepage.defrag"),
    "queue/read_ahead_kb": ("disk", "readahead"),
    "queue/scheduler": ("disk", "elevator"),
}


def runs(sys: Sys, daemon: str) -> bool:
    """Whether the service has a process: by its control group under systemd, else by its pid file."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
        if text(sys, f"{root}/system.slice/{daemon}.service/cgroup.procs"):
            return True
    pids = [text(sys, path) for path in _PID_FILES.get(daemon, ())]
    return any(pid and sys.exists(f"/proc/{pid}") for pid in pids)


def tuned_profiles(sys: Sys) -> list[str]:
    """Names of TuneD's active profiles; [] when it does not run."""
    return (text(sys, "/etc/tuned/active_profile") or "").split() if runs(sys, "tuned") else []


def tuned_value(sys: Sys, key: str) -> tuple[str, str] | None:
    """(value, file) that TuneD's active profile sets for a sysctl's name or a sysfs attribute."""
    section, option = _SYSFS_OF_TUNED.get(key, ("sysctl", key))
    for profile in reversed(tuned_profiles(sys)):
        found = _in_profile(sys, profile, section, option, depth=0)
        if found is not None:
            return found
    return None


def tuned_yields(sys: Sys) -> bool:
    """Whether TuneD takes the box's own sysctl files again after its profile: lines there have the last word."""
    for line in (text(sys, "/etc/tuned/tuned-main.conf") or "").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "reapply_sysctl":
            return value.strip().lower() in ("1", "true", "yes", "y", "t")
    return True


def _in_profile(sys: Sys, profile: str, section: str, option: str, depth: int) -> tuple[str, str] | None:
    """The profile's own line, else the one of the profile that it includes."""
    for folder in _PROFILE_FOLDERS:
        path = f"{folder}/{profile}/tuned.conf"
        content = text(sys, path)
        if content is not None:
            break
    else:
        return None
    parsed = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",), inline_comment_prefixes="#")
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parsed.read_string(content)
    except configparser.Error:
        return None
    value = parsed.get(section, option, fallback=None)
    if value is not None:
        return value.lstrip("><=").strip().strip('"'), path  # `=>4096` means at least
    for included in parsed.get("main", "include", fallback="").replace(",", " ").split():
        if depth < 8 and (found := _in_profile(sys, included, section, option, depth + 1)):
            return found
    return None
