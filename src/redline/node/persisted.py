"""What the box's own files will set at the next boot, and whether redline's file would come before or after them.

Order of the files: sysctl.d(5), tmpfiles.d(5), udev(7) of systemd 252 to 257. A file hides those of its name in the
folders further down; then all are taken in the order of their names. The last line wins for sysctl and udev, the first
for tmpfiles.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from redline.node.daemons import runs, tuned_value, tuned_yields
from redline.node.meets import is_met
from redline.node.sys import Sys, SysFault, text
from redline.node.tunables.tunable import Place, Tunable, Want

SYSCTL_FILE = "/etc/sysctl.d/90-redline.conf"
TMPFILES_FILE = "/etc/tmpfiles.d/90-redline.conf"
UDEV_FILE = "/etc/udev/rules.d/90-redline.rules"
"""The files that redline itself writes."""

_FOLDERS = ("/etc", "/run", "/usr/local/lib", "/usr/lib")
TAKEN_AGAIN = ("/etc/", "/run/")
"""Where TuneD looks for files of sysctl.d after its profile."""
_DAEMONS_THAT_WRITE_ALWAYS = {
    "irqbalance": "irqbalance moves it again every ten seconds",
    "power-profiles-daemon": "power-profiles-daemon sets it with every change of profile",
}


@dataclass(frozen=True)
class Override:
    """`wins`: it would undo what redline writes, live or at the next boot."""

    owner: str
    why: str
    wins: bool


def overriding(sys: Sys, tunable: Tunable, place: Place, value: str, want: Want) -> Override | None:
    """The file or daemon that has a say in this value; None when nobody has."""
    met = bool(is_met(value, want))
    line = _line(sys, tunable, place)
    for daemon in tunable.owners:
        if daemon == "tuned" and (found := tuned_value(sys, tunable.persist_key)):
            set_value, path = found
            why = f"TuneD's profile sets {set_value} ({path})"
            if is_met(set_value, want) or (_taken_again(sys, tunable) and line and line[1].startswith(TAKEN_AGAIN)):
                continue
            if _taken_again(sys, tunable):
                return Override(path, f"{why}; a file of sysctl.d has the last word", met)
            return Override("tuned", why, True)
        if daemon in _DAEMONS_THAT_WRITE_ALWAYS and not met and runs(sys, daemon):
            return Override(daemon, _DAEMONS_THAT_WRITE_ALWAYS[daemon], True)
    if line is None:
        return None
    set_value, path, after_ours = line
    if is_met(set_value, want):
        return Override(path, "" if met else f"{path} sets {set_value}: not loaded, or changed since", False)
    when = f"it is right until the next boot: {path} sets {set_value}" if met else f"{path} sets {set_value}"
    return Override(path, when + (", after any file of redline's" if after_ours else ""), met or after_ours)


def _taken_again(sys: Sys, tunable: Tunable) -> bool:
    return tunable.persist == "sysctl" and tuned_yields(sys)


def _line(sys: Sys, tunable: Tunable, place: Place) -> tuple[str, str, bool] | None:
    """(value, file, whether it would win against redline's file)."""
    if tunable.persist == "sysctl":
        found = sysctl_line(sys, tunable.persist_key)
        ours, last_wins = SYSCTL_FILE, True
    elif tunable.persist == "tmpfiles":
        found, ours, last_wins = tmpfiles_line(sys, place.path), TMPFILES_FILE, False
    elif tunable.persist == "udev":
        found, ours, last_wins = udev_line(sys, tunable.persist_key, place), UDEV_FILE, True
    else:
        return None
    if found is None:
        return None
    value, path = found
    if path == ours:
        return value, path, False
    if path == "/etc/sysctl.conf":
        return value, path, True
    mine, theirs = posixpath.basename(ours), posixpath.basename(path)
    return value, path, theirs > mine if last_wins else theirs < mine


def files_in_order(sys: Sys, folder: str, ending: str) -> list[str]:
    """Configuration files of `sysctl.d` and its like, in the order in which they are read; masked ones are left out."""
    by_name: dict[str, str] = {}
    for root in _FOLDERS:
        for name in sys.names(f"{root}/{folder}"):
            if name.endswith(ending):
                by_name.setdefault(name, f"{root}/{folder}/{name}")
    paths = [path for _name, path in sorted(by_name.items())]
    return [path for path in paths if sys.link(path) != "/dev/null"]


def sysctl_line(sys: Sys, key: str) -> tuple[str, str] | None:
    """(value, file) that the boot gives to a sysctl such as `vm.swappiness`; None when no file names it.

    A line that names the key beats every line with a pattern, wherever it stands. `/etc/sysctl.conf` counts where it
    is linked, or where procps loads the settings (no systemd-sysctl).
    """
    wanted = _sysctl_path(key)
    paths = files_in_order(sys, "sysctl.d", ".conf")
    if not any(sys.exists(f"{root}/lib/systemd/systemd-sysctl") for root in ("", "/usr")):
        paths.append("/etc/sysctl.conf")
    exact: tuple[str, str] | None = None
    pattern: tuple[str, str] | None = None
    for path in paths:
        for line in (text(sys, path) or "").splitlines():
            name, equals, value = line.strip().partition("=")
            if not equals or name.startswith(("#", ";")):
                continue
            name = _sysctl_path(name.strip().removeprefix("-"))
            if name == wanted:
                exact = (" ".join(value.split()), path)
            elif "*" in name and fnmatchcase(wanted, name):
                pattern = (" ".join(value.split()), path)
    return exact or pattern


def _sysctl_path(key: str) -> str:
    """`net.ipv4.conf.eth0/1.rp_filter` and `net/ipv4/conf/eth0.1/rp_filter` alike: the first separator decides."""
    first = re.search(r"[./]", key)
    return key.translate(str.maketrans("./", "/.")) if first and first.group() == "." else key


def tmpfiles_line(sys: Sys, target: str) -> tuple[str, str] | None:
    """(value, file) of the first `w` line for `target`."""
    for path in files_in_order(sys, "tmpfiles.d", ".conf"):
        for line in (text(sys, path) or "").splitlines():
            parts = line.split(None, 6)
            if len(parts) == 7 and parts[0].startswith("w") and fnmatchcase(target, parts[1]):
                return parts[6].strip(), path
    return None


def udev_line(sys: Sys, attribute: str, place: Place) -> tuple[str, str] | None:
    """(value, file) of the last rule that sets `attribute` of the device `place.name`.

    Rules that match by what a folder does not tell (properties, programs) are left out.
    """
    device = place.path.removesuffix("/" + attribute)
    found: tuple[str, str] | None = None
    for path in files_in_order(sys, "udev/rules.d", ".rules"):
        content = (text(sys, path) or "").replace("\\\n", " ")
        for line in content.splitlines():
            for name, operator, value in _udev_terms(line):
                if name == f"ATTR{{{attribute}}}" and operator in ("=", ":="):
                    found = (value, path) if _udev_matches(sys, line, device, place.name) else found
    return found


def _udev_terms(line: str) -> Iterator[tuple[str, str, str]]:
    if not line.strip() or line.lstrip().startswith("#"):
        return
    try:
        words = shlex.split(line.replace(",", " "), comments=False)
    except ValueError:
        return
    for word in words:
        match = re.fullmatch(r"([A-Z_]+(?:\{[^}]*\})?)(==|!=|:=|\+=|-=|=)(.*)", word, re.DOTALL)
        if match:
            yield match.group(1), match.group(2), match.group(3)


def _udev_matches(sys: Sys, line: str, device: str, name: str) -> bool:
    kind = next((each for each in ("net", "block", "pci", "bdi") if f"/{each}/" in device), "")
    known = {"KERNEL": name.split()[0], "SUBSYSTEM": kind, "ACTION": "add"}
    for term, operator, pattern in _udev_terms(line):
        if operator not in ("==", "!="):
            continue
        if term.startswith("ATTR{"):
            try:
                value = sys.read(f"{device}/{term[5:-1]}").decode(errors="replace").strip()
            except SysFault:
                return False
        elif term in known:
            value = known[term]
        else:
            return False
        if any(fnmatchcase(value, each) for each in pattern.split("|")) != (operator == "=="):
            return False
    return True
