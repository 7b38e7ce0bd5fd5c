"""A transaction that a reboot catches unconfirmed is undone by the next boot.

The process that watches a live change does not outlive a reboot. So systemd is given a unit of this transaction, as its
first changes: files alone, found at the next boot, with no `daemon-reload` now, which could take GPUs from containers.

at boot      nothing of it needed the boot: whoever restarted the box had lost it. Undone before the network is set up.
after boot   boot arguments, which only a boot can prove: undone a while after it, unless confirmed in that time.

`python -m redline.node.boot_guard` is what the unit runs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys as interpreter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import redline
from redline.errors import RedlineError
from redline.node.apply import LEAST_AFTER_BOOT_S, note
from redline.node.change import Change, Kind
from redline.node.fake import FakeSys
from redline.node.journal import Journal
from redline.node.live import LiveSys
from redline.node.lock import boot_id, identity, locked
from redline.node.persist.distro import program
from redline.node.revert import revert_locked
from redline.node.sys import Sys, SysFault
from redline.node.transaction import Transaction, of, open_journal
from redline.node.undo import put_back

UNITS = "/etc/systemd/system"
LIVE: tuple[Kind, ...] = ("attribute",)
"""What is overwritten whoever set it: the way into the box is at stake. Files only matter at the next boot, and an
edited one may be somebody's repair."""
LOCK_S = 600.0
_HEAD = "# Written by `redline node apply`; `redline node confirm` and `redline node revert` remove it.\n"

Mode = Literal["at boot", "after boot"]


def mode_of(changes: Sequence[Change]) -> Mode:
    return "after boot" if any(change.needs_reboot for change in changes) else "at boot"


def guard(sys: Sys, state_dir: Path, txn: str, changes: Sequence[Change], confirm_s: float) -> list[Change]:
    """The files that make the next boot undo `txn`; [] on a box that systemd does not start."""
    if not sys.exists("/run/systemd/system"):
        return []
    name = f"redline-undo-{txn}"
    service = f"{UNITS}/{name}.service"
    if mode_of(changes) == "at boot":
        files = {
            service: _service(sys, state_dir, txn, _EARLY),
            f"{UNITS}/sysinit.target.d/{name}.conf": _wanted(f"{name}.service"),
        }
    else:
        timer = f"[Timer]\nOnActiveSec={max(confirm_s, LEAST_AFTER_BOOT_S):g}\nAccuracySec=1s\n"
        files = {
            service: _service(sys, state_dir, txn, _LATE),
            f"{UNITS}/{name}.timer": f"{_HEAD}[Unit]\nDescription=Time to confirm transaction {txn}\n\n{timer}",
            # a link in timers.target.wants would do the same; a file is what a journal can put back
            f"{UNITS}/timers.target.d/{name}.conf": _wanted(f"{name}.timer"),
        }
    return [Change("file", path, None, content.encode(), ("boot guard",)) for path, content in files.items()]


_EARLY = """DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service
Wants=network-pre.target
Before=network-pre.target sysinit.target shutdown.target
Conflicts=shutdown.target
"""
_LATE = "After=local-fs.target\n"


def _wanted(unit: str) -> str:
    return f"{_HEAD}[Unit]\nWants={unit}\n"


def _service(sys: Sys, state_dir: Path, txn: str, order: str) -> str:
    folder = state_dir.resolve()
    argv = [interpreter.executable, "-m", "redline.node.boot_guard", txn, "--state-dir", str(folder)]
    root = getattr(sys, "root", Path("/"))
    if sys.kind != "live" or root != Path("/"):
        argv += ["--root", str(root)]
    package = Path(redline.__file__).resolve().parents[1]
    places = dict.fromkeys([interpreter.executable, str(package), str(folder), "/boot"])
    search = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join(str(Path(path).resolve()) for path in search.split(os.pathsep) if path)
    environment = f"Environment={_word(f'PYTHONPATH={paths}')}\n" if paths else ""
    return (
        f"{_HEAD}[Unit]\nDescription=Undoes transaction {txn} of redline unless it was confirmed\n"
        f"RequiresMountsFor={' '.join(map(_word, places))}\n{order}\n[Service]\nType=oneshot\n{environment}"
        f"ExecStart={' '.join(map(_word, argv))}\nTimeoutStartSec=900\n"
    )


def _word(text: str) -> str:
    """For a unit file: no specifiers, no variables, one word."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w@/.:=+,-]+", text) else f'"{escaped}"'


def remove(sys: Sys, journal: Journal) -> None:
    """Takes the unit of a transaction back, and nothing else of it. SysFault when the box refuses: the unit that stays
    finds nothing to do."""
    found = of(journal)
    for index in reversed(range(int(found.guard.get("files", 0)))):
        step = found.steps[index]
        if step.before is None or step.undone:
            continue
        note(journal, "undoing", i=index)
        put_back(sys, step)
        note(journal, "undone", i=index)


def give_up(sys: Sys, state_dir: Path, txn: str) -> str:
    """Undoes `txn`, which nobody has confirmed in time; says what was done. Whoever calls holds the lock."""
    done = revert_locked(sys, state_dir, txn, force=LIVE, leave=True)
    return f"reverted {len(done.undone)} changes" + (f", left {len(done.left)}" if done.left else "")


def at_boot(sys: Sys, state_dir: Path, txn: str) -> str:
    """What the unit does: undoes `txn` unless it was confirmed, and removes the unit. Says what was done."""
    with locked(state_dir, "boot guard", wait_s=LOCK_S):
        journal = open_journal(state_dir, txn, salvage=True)
        found = of(journal)
        if found.boot == boot_id():
            return "the box was not started since: nothing to do"
        if found.confirmed or not found.holds:
            if found.status == "applied":
                remove(sys, journal)
            return f"{found.status}: nothing to do"
        said = give_up(sys, state_dir, txn)
        return " ".join([said, *_settle(sys, found)])


def _settle(sys: Sys, found: Transaction) -> list[str]:
    """netplan's files were made into others before any unit ran; arguments of the running kernel stay."""
    said = []
    paths = [path for step in found.steps for path in step.change.paths]
    if any(path.startswith("/etc/netplan/") for path in paths) and program(sys, "netplan"):
        try:
            said += [f"netplan generate ended with {sys.run(['netplan', 'generate'], timeout_s=60.0).rc}"]
        except SysFault as fault:
            said.append(str(fault))
    arguments = [word for step in found.steps for word in step.change.arguments]
    if arguments:
        said.append(f"the kernel that runs was given {' '.join(dict.fromkeys(arguments))}: gone at the next boot")
    return said


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("txn")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args(argv)
    box: Sys = LiveSys() if asked.root is None else FakeSys(asked.root)
    failed = 0
    try:
        said = at_boot(box, asked.state_dir, asked.txn)
    except (RedlineError, SysFault) as error:
        said, failed = f"failed: {error}", 1
    interpreter.stdout.write(f"{said}\n")  # into the system's journal
    try:
        with locked(asked.state_dir, "boot guard", wait_s=LOCK_S):
            fields: dict[str, Any] = identity()
            note(open_journal(asked.state_dir, asked.txn, salvage=True), "boot guard said", text=said, **fields)
    except RedlineError as error:
        interpreter.stderr.write(f"{error}\n")
    return failed


if __name__ == "__main__":
    interpreter.exit(main())
