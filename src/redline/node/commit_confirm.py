"""A change that may cut the box off undoes itself unless somebody who can still reach it says that all is well.

`python -m redline.node.commit_confirm` is that undoing: a process in a session of its own, started before the first
write, which sleeps until the deadline and then looks into the journal. It outlives redline, its terminal and its
connection. A reboot it does not outlive; there `boot_guard` takes over, where systemd starts the box.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys as interpreter
import time
from pathlib import Path
from typing import Any

from redline.errors import ApplyFailed, RedlineError, UsageError
from redline.node.apply import STATE_DIR, note
from redline.node.boot_guard import LOCK_S, give_up, remove
from redline.node.fake import FakeSys
from redline.node.live import LiveSys
from redline.node.lock import boot_id, identity, locked, start_ticks
from redline.node.sys import Sys, SysFault
from redline.node.transaction import Transaction, of, open_journal, transactions

START_S = 20.0


def arm(sys: Sys, state_dir: Path, txn: str, seconds: float) -> dict[str, Any]:
    """Starts the process that reverts `txn` in `seconds`; gives its pid, start time and boot. It is nobody's child."""
    argv = [interpreter.executable, "-m", "redline.node.commit_confirm", txn, f"{seconds:g}"]
    argv += ["--state-dir", str(state_dir.resolve())]
    root = getattr(sys, "root", Path("/"))
    if sys.kind != "live" or root != Path("/"):
        argv += ["--root", str(root)]
    try:
        started = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_S,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ApplyFailed(
            "nothing was changed: the process that would undo it cannot be started", why=str(error)
        ) from error
    if started.returncode or not started.stdout.strip().isdigit():
        raise ApplyFailed(
            "nothing was changed: the process that would undo it does not start", why=started.stderr.strip()[-400:]
        )
    pid = int(started.stdout)
    return {"pid": pid, "start": start_ticks(pid), "boot": boot_id()}


def confirm(
    state_dir: Path = STATE_DIR, txn: str = "last", *, sys: Sys | None = None, for_good: bool = False
) -> Transaction:
    """Keeps what transaction `txn` changed. UsageError when there is nothing to confirm, or when it is too late.

    What takes effect at the next boot is confirmed after that boot; what is confirmed before it holds until then
    (`kept`), unless `for_good`.
    """
    with locked(state_dir, "confirm", wait_s=5.0):
        journal = open_journal(state_dir, txn)
        found = of(journal)
        if found.status != "unconfirmed":
            late = "it was not confirmed in time" if found.confirm_by and not found.confirmed else ""
            raise UsageError(f"transaction {found.txn} is {found.status}: there is nothing to confirm", why=late)
        if found.guard.get("mode") == "after boot" and found.boot == boot_id() and not for_good:
            if not found.confirm_by or found.kept:
                raise UsageError(
                    f"transaction {found.txn} takes effect at the next boot: nothing can be said of it yet",
                    fix="reboot, then confirm; or --for-good, which keeps it also when the box does not come up",
                )
            journal.add("kept", at=time.time())
            _let_go(found.watchdog)
            return of(journal)
        journal.add("confirmed", at=time.time())
        _let_go(found.watchdog)
        with contextlib.suppress(SysFault):  # the unit that stays finds nothing to do, and tries again to be removed
            remove(sys or LiveSys(), journal)
        return of(journal)


def pending(state_dir: Path = STATE_DIR) -> list[str]:
    """One sentence for each transaction that waits to be confirmed."""
    ways = "redline node confirm keeps it, redline node revert undoes it"
    return [
        f"transaction {found.txn} {_what_happens(found)}; {ways}"
        for found in transactions(state_dir)
        if found.status == "unconfirmed"
    ]


def _what_happens(found: Transaction) -> str:
    pid, start = int(found.watchdog.get("pid", 0)), found.watchdog.get("start")
    this_boot = found.boot == boot_id()
    if this_boot and not found.kept and found.watchdog.get("boot") == boot_id() and start_ticks(pid) == start != 0:
        return f"is undone in {max(0.0, found.confirm_by - time.time()):.0f} s"
    seconds = float(found.guard.get("seconds", 0.0))
    if found.guard.get("mode") == "after boot" and this_boot:
        return f"takes effect at the next boot, and is undone {seconds:.0f} s after it unless confirmed then"
    if found.guard.get("mode") == "after boot":
        left = max(0.0, seconds - time.clock_gettime(time.CLOCK_BOOTTIME))
        return f"is undone in about {left:.0f} s" if left else "is being undone, or could not be: systemctl --failed"
    if found.guard and this_boot:
        return "is undone by the next boot: the process that would undo it now is gone"
    return "is not undone by itself any more: its process is gone"


def _let_go(watchdog: dict[str, Any]) -> None:
    """Ends the process that redline started; pid and start time say that it is that one."""
    pid = int(watchdog.get("pid", 0))
    if not pid or watchdog.get("boot") != boot_id():
        return
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            if start_ticks(pid) == watchdog.get("start") != 0:
                signal.pidfd_send_signal(fd, signal.SIGTERM)
        finally:
            os.close(fd)


def watch(sys: Sys, state_dir: Path, txn: str, seconds: float) -> str:
    """Sleeps, then reverts `txn` unless it was confirmed. Gives what was done."""
    # sleeping in one go would be stretched by a suspend; the clock that counts suspends is asked again
    deadline = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    while (left := deadline - time.clock_gettime(time.CLOCK_BOOTTIME)) > 0:
        time.sleep(min(left, 60.0))
    with locked(state_dir, "commit-confirm", wait_s=LOCK_S):
        found = of(open_journal(state_dir, txn))
        if found.confirmed or found.kept or not found.holds:
            return f"{found.status}: nothing to do"
        return give_up(sys, state_dir, txn)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("txn")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    asked.state_dir = asked.state_dir.resolve()
    _detach(asked.state_dir / f"{asked.txn}.watchdog.log")
    box: Sys = LiveSys() if asked.root is None else FakeSys(asked.root)
    try:
        said = watch(box, asked.state_dir, asked.txn, asked.seconds)
    except RedlineError as error:
        said = f"failed: {error}"
    interpreter.stderr.write(f"{said}\n")
    try:
        with locked(asked.state_dir, "commit-confirm", wait_s=LOCK_S):
            note(open_journal(asked.state_dir, asked.txn), "watchdog said", text=said, **identity())
    except RedlineError as error:
        interpreter.stderr.write(f"{error}\n")


def _detach(log: Path) -> None:
    """Forks; the parent prints the child's pid and ends: whoever started it waits for it and has no child."""
    pid = os.fork()
    if pid:
        interpreter.stdout.write(f"{pid}\n")
        interpreter.stdout.flush()
        os._exit(0)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, target in ((nothing, 0), (nothing, 1), (written, 2)):
        os.dup2(fd, target)
    os.close(nothing)
    os.close(written)


if __name__ == "__main__":
    main()
