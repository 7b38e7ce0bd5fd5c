"""Boot arguments: a GRUB file of our own on Debian and Ubuntu, grubby on RHEL, the entries themselves for systemd-boot.

Recovery entries of GRUB take GRUB_CMDLINE_LINUX alone, so an argument that keeps the box from booting is not in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from redline.node.change import Change
from redline.node.persist.distro import family, program
from redline.node.persist.form import HEAD, Form, Setting, behind, file_change, ids, old_lines
from redline.node.sys import Sys, SysFault, text

GRUB_FOLDER = "/etc/default/grub.d"
GRUB_FILES = (f"{GRUB_FOLDER}/99-redline.cfg", f"{GRUB_FOLDER}/zzz-redline.cfg")
GRUB_CONFIG = "/boot/grub/grub.cfg"
BOOT_RISK = 3
_VARIABLE = "GRUB_CMDLINE_LINUX_DEFAULT"


def argument(one: Setting) -> str:
    """`iommu=pt`; a word alone (`nosmt`) where the row wants nothing else than that it is there."""
    return one.key if one.value in ("", one.key, "present") else f"{one.key}={one.value}"


def cmdline(sys: Sys, settings: Sequence[Setting]) -> Form:
    """The arguments for every kernel from the next boot on."""
    arguments = list(dict.fromkeys(argument(one) for one in settings))  # several places may want the same
    if family(sys) == "rhel" or (program(sys, "grubby") and family(sys) != "debian"):
        return _grubby(sys, settings, arguments)
    if sys.exists("/etc/default/grub") and sys.exists(GRUB_CONFIG):
        return _grub(sys, settings, arguments)
    entries = [path for root in ("/boot", "/efi", "/boot/efi") for path in sys.glob(f"{root}/loader/entries/*.conf")]
    if entries:
        return _systemd_boot(sys, settings, arguments, entries)
    why = "no boot loader that redline knows is set up here"
    return Form(warnings=[f"{why}: boot with {' '.join(arguments)} ({', '.join(ids(settings))})"])


def _grub(sys: Sys, settings: Sequence[Setting], arguments: list[str]) -> Form:
    path = _grub_path(sys)
    old = [
        word
        for line in old_lines(sys, path)
        if (found := re.search(r'\$\w+ ([^"]*)"', line))
        for word in found[1].split()
    ]
    words = " ".join(with_arguments(old, arguments))
    quoted = re.sub(r'([\\"$`])', r"\\\1", words)
    content = f'{HEAD}{_VARIABLE}="${_VARIABLE} {quoted}"\n'
    made = file_change(sys, path, content.encode(), settings, risk=BOOT_RISK, needs_reboot=True)
    if not made:
        return Form()
    command = Change(
        *("command", "", None, None, ids(settings)),
        argv=("update-grub",),
        covers=(behind(sys, GRUB_CONFIG),),
        redo_argv=("update-grub",),
        risk=BOOT_RISK,
        needs_reboot=True,
        arguments=tuple(arguments),
    )
    return Form([*made, command])


def _grub_path(sys: Sys) -> str:
    """A name that comes after every file which sets the variable anew, without what was in it."""
    resetting = [
        name
        for name in sys.names(GRUB_FOLDER)
        if re.search(rf"(?m)^\s*{_VARIABLE}=(?!.*\${{?{_VARIABLE}\b)", text(sys, f"{GRUB_FOLDER}/{name}") or "")
    ]
    return next(
        (path for path in GRUB_FILES if all(path.rpartition("/")[2] > name for name in resetting)), GRUB_FILES[-1]
    )


def _grubby(sys: Sys, settings: Sequence[Setting], arguments: list[str]) -> Form:
    """grubby changes the entry of every kernel that is installed, and the defaults for those to come."""
    if not program(sys, "grubby"):
        return Form(warnings=[f"grubby is not installed: boot with {' '.join(arguments)} ({', '.join(ids(settings))})"])
    # also those that are not there: grubby may make them
    files = ["/etc/default/grub", "/etc/kernel/cmdline", "/boot/grub2/grubenv", "/boot/grub2/grub.cfg"]
    covers = sorted({behind(sys, path) for path in [*files, *sys.glob("/boot/loader/entries/*.conf")]})
    words = " ".join(arguments)
    command = Change(
        *("command", "", None, None, ids(settings)),
        argv=("grubby", "--update-kernel=ALL", f"--args={words}"),
        covers=tuple(covers),
        redo_argv=("grubby", "--update-kernel=ALL", f"--remove-args={words}"),
        risk=BOOT_RISK,
        needs_reboot=True,
        arguments=tuple(arguments),
    )
    return Form([command])


def _systemd_boot(sys: Sys, settings: Sequence[Setting], arguments: list[str], entries: list[str]) -> Form:
    """The entries that are there, and /etc/kernel/cmdline, from which those of later kernels are made."""
    form = Form()
    more = {"risk": BOOT_RISK, "needs_reboot": True, "arguments": tuple(arguments)}
    for path in [*entries, "/etc/kernel/cmdline"]:
        try:
            content = sys.read(path).decode("latin-1")
        except SysFault:
            continue  # /etc/kernel/cmdline is made from /proc/cmdline where it is absent
        after = "".join(_with_options(line, arguments, path) for line in content.splitlines(keepends=True))
        form.changes += file_change(sys, path, after.encode("latin-1"), settings, **more)
    return form


def _with_options(line: str, arguments: list[str], path: str) -> str:
    if path != "/etc/kernel/cmdline":
        found = re.match(r"(options\s+)(.*?)(\s*)$", line, re.DOTALL)
        if not found:
            return line
        head, words, end = found.groups()
    else:
        head, words, end = "", line.rstrip("\n"), line[len(line.rstrip("\n")) :]
    return head + " ".join(with_arguments(words.split(), arguments)) + end


def with_arguments(words: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """`words` without the arguments that are set anew, and those at the end: the last one of a name counts."""
    names = {_name(argument) for argument in arguments}
    if sorted(word for word in words if _name(word) in names) == sorted(arguments):
        return list(words)
    return [word for word in words if _name(word) not in names] + list(arguments)


def _name(word: str) -> str:
    return word.partition("=")[0].replace("-", "_")
