"""Settings kept as lines of one file: sysctl.d, tmpfiles.d, udev rules, limits.d, modprobe.d."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from redline.node.change import Change
from redline.node.persist.distro import family, first_that_exists
from redline.node.persist.form import (
    HEAD,
    Form,
    Setting,
    Wins,
    WithFile,
    file_change,
    ids,
    old_lines,
    own_file,
    risk,
    winning_path,
)
from redline.node.persisted import SYSCTL_FILE, TMPFILES_FILE, UDEV_FILE, sysctl_line, tmpfiles_line, udev_line
from redline.node.sys import Sys

SYSCTL_FILES = (SYSCTL_FILE, "/etc/sysctl.d/99-zz-redline.conf", "/etc/sysctl.d/zzz-redline.conf")
"""The last name wins; the plain one is taken where it does."""
TMPFILES_FILES = (TMPFILES_FILE, "/etc/tmpfiles.d/10-redline.conf", "/etc/tmpfiles.d/00-00-redline.conf")
"""The first name wins."""
UDEV_FILES = (UDEV_FILE, "/etc/udev/rules.d/99-zz-redline.rules", "/etc/udev/rules.d/zzz-redline.rules")
LIMITS_FILE = "/etc/security/limits.d/90-redline.conf"
MODULE_FILE = "/etc/modprobe.d/zz-redline.conf"
Line = Callable[[Setting], str]


def _merged(old: Sequence[str], new: dict[str, str], key_of: Callable[[str], str]) -> str:
    """The file with the lines of `new` (key → line) instead of, or after, the ones that are there."""
    lines = {key_of(line): line for line in old}
    lines.update(new)
    return HEAD + "".join(f"{line}\n" for line in lines.values())


def _kept_in(
    sys: Sys, names: Sequence[str], settings: Sequence[Setting], line: Line, key_of: Callable[[str], str], wins: Wins
) -> tuple[str, list[Change]]:
    """One of redline's files with the settings in it, under a name by which they hold; an older name of it goes."""
    names = [name for name in names if sys.link(name) != "/dev/null"] or names  # that one is masked
    had = own_file(sys, names)
    new = {key_of(text): text for text in map(line, settings)}
    content = _merged(old_lines(sys, had), new, key_of)
    path = winning_path(sys, names[names.index(had) :], content, settings, wins)
    changes = file_change(sys, path, content.encode(), settings)
    if path != had and sys.stat(had) is not None:
        changes += file_change(sys, had, None, settings)
    return path, changes


def sysctls(sys: Sys, settings: Sequence[Setting]) -> Form:
    """sysctl.d(5). Where a file has the last word whatever ours is called, its own line is changed."""
    path, changes = _kept_in(
        sys,
        SYSCTL_FILES,
        settings,
        lambda one: f"{one.key} = {one.value}",
        lambda line: line.split("=")[0].strip(),
        _sysctl,
    )
    form = Form(changes)
    content = next((change.after for change in changes if change.path == path), None) or b""
    losing = [one for one in settings if not _sysctl(WithFile(sys, path, content.decode()), one)] if content else []
    by_file: dict[str, list[Setting]] = {}
    for one in losing:
        found = sysctl_line(sys, one.key)
        if found:
            by_file.setdefault(found[1], []).append(one)
    for other, those in by_file.items():
        form.changes += file_change(sys, other, _in_place(text_of(sys, other), those).encode(), those)
        form.warnings.append(f"{other} has the last word on {', '.join(one.key for one in those)}: changed in place")
    return form


def text_of(sys: Sys, path: str) -> str:
    return sys.read(path).decode("utf-8", "surrogateescape")


def _in_place(content: str, settings: Sequence[Setting]) -> str:
    """The file with these keys' own lines set anew."""
    values = {one.key.replace("/", "."): one.value for one in settings}
    lines = []
    for line in content.splitlines(keepends=True):
        key, equals, _old = line.partition("=")
        name = key.strip().removeprefix("-").replace("/", ".")
        lines.append(f"{key}= {values[name]}\n" if equals and name in values else line)
    return "".join(lines)


def _sysctl(box: Any, one: Setting) -> bool:
    found = sysctl_line(box, one.key)
    return found is not None and found[0] == " ".join(one.value.split())


def tmpfiles(sys: Sys, settings: Sequence[Setting]) -> Form:
    """tmpfiles.d(5), `w` lines. Percent signs are doubled: they would name something."""
    _path, changes = _kept_in(
        sys,
        TMPFILES_FILES,
        settings,
        lambda one: f"w {_escaped(one.place.path)} - - - - {one.value.replace('%', '%%')}",
        lambda line: line.partition(" - - - - ")[0],
        _tmpfile,
    )
    return Form(changes)


def _escaped(path: str) -> str:
    return f'"{path}"'.replace("%", "%%") if " " in path else path.replace("%", "%%")


def _tmpfile(box: Any, one: Setting) -> bool:
    found = tmpfiles_line(box, one.place.path)
    if found is None and " " in one.place.path:
        return True  # quoted: nobody else has a line for it
    return found is not None and found[0] == one.value.replace("%", "%%")


def udev(sys: Sys, settings: Sequence[Setting]) -> Form:
    """udev(7) rules by the device's name as the kernel gives it: a disk that is plugged in again has it, too."""
    _path, changes = _kept_in(sys, UDEV_FILES, settings, _udev_rule, lambda line: re.sub(r'="[^"]*"$', "", line), _udev)
    return Form(changes)


def _udev_rule(one: Setting) -> str:
    device = one.place.path.removesuffix("/" + one.key)
    name = posixpath.basename(device)
    kind = (
        "block"
        if "/block/" in device
        else next((part for before, part in pairwise(device.split("/")) if before in ("class", "bus")), "block")
    )
    # a card gets its name after it was added: that is a move
    actions = "add|change|move" if kind == "net" else "add|change"
    return f'ACTION=="{actions}", SUBSYSTEM=="{kind}", KERNEL=="{name}", ATTR{{{one.key}}}="{one.value}"'


def _udev(box: Any, one: Setting) -> bool:
    found = udev_line(box, one.key, one.place)
    return found is None or found[0] == one.value


def limits(sys: Sys, settings: Sequence[Setting]) -> Form:
    """limits.d(5), for sessions that somebody logs in to. Services take theirs from their unit."""
    new = {f"{who} {one.key}": f"{who} - {one.key} {one.value}" for one in settings for who in ("*", "root")}
    content = _merged(old_lines(sys, LIMITS_FILE), new, lambda line: " ".join(line.split()[0::2][:2]))
    form = Form(file_change(sys, LIMITS_FILE, content.encode(), settings))
    form.warnings.append("limits.d reaches sessions that begin from now on, not services and not containers")
    return form


def modules(sys: Sys, settings: Sequence[Setting]) -> Form:
    """modprobe.d(5), and the initial RAM disk made anew, because a module may be loaded from there."""
    new = {_module(one): f"options {_module(one)}={one.value}" for one in settings}
    content = _merged(old_lines(sys, MODULE_FILE), new, lambda line: line.removeprefix("options ").split("=")[0])
    made = file_change(sys, MODULE_FILE, content.encode(), settings, needs_reboot=True)
    form = Form(list(made))
    argv = ("update-initramfs", "-u") if family(sys) == "debian" else ("dracut", "-f")
    if made and first_that_exists(sys, *(f"{folder}/{argv[0]}" for folder in ("/usr/sbin", "/usr/bin", "/sbin"))):
        form.changes.append(
            Change(
                *("command", "", None, None, ids(settings)),
                argv=argv,
                undo_argv=argv,
                redo_argv=argv,
                risk=max(2, risk(settings)),
                needs_reboot=True,
            )
        )
    elif made:
        form.warnings.append(
            "the initial RAM disk could not be made anew: modules loaded from it keep their old options"
        )
    return form


def _module(one: Setting) -> str:
    """`module parameter`, as modprobe.d has it."""
    return one.key.replace(".", " ", 1)


def overridden_at_boot(sys: Sys, path: str, content: bytes) -> str:
    """What keeps a line of redline's file from having the last word at the next boot; '' for nothing."""
    for line in content.decode(errors="replace").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if path in SYSCTL_FILES:
            key, _, value = (part.strip() for part in line.partition("="))
            found = sysctl_line(sys, key)
        elif path in TMPFILES_FILES:
            key, value = line.split(None, 6)[1], line.split(None, 6)[6]
            found = tmpfiles_line(sys, key)
        else:
            return ""
        if found is not None and found[0] != " ".join(value.split()):
            return f"{found[1]} sets {key} to {found[0]} at the next boot"
    return ""
