"""One redline at a time changes a box.

The kernel's lock on the file goes away with its owner, however that ends; the owner's pid and start time inside say who
it is, and hold where the file system has no locks.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redline.errors import JournalFault, NodeBusy
from redline.node.journal import make_state_dir

_PAUSE_S = 0.1


def identity() -> dict[str, Any]:
    """This process: pid, start (clock ticks since boot) and boot, which together no other process will ever have."""
    return {"pid": os.getpid(), "start": start_ticks(os.getpid()), "boot": boot_id()}


def start_ticks(pid: int) -> int:
    """0 for a process that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextmanager
def locked(state_dir: Path, doing: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Holds the lock of `state_dir`; NodeBusy with the owner when it is taken for longer than `wait_s`. What a dead
    owner has left is taken over."""
    make_state_dir(state_dir)
    path = state_dir / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalFault(f"{path}: {error.strerror}", fix="sudo, or another --state-dir") from error
    try:
        deadline = time.monotonic() + wait_s
        while not _take(fd):
            if time.monotonic() >= deadline:
                raise _busy(_owner(fd), path)
            time.sleep(_PAUSE_S)
        _write(fd, {**identity(), "doing": doing})
        try:
            yield
        finally:
            _write(fd, {})
    finally:
        os.close(fd)  # lets go of the lock


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks: the owner's name decides
    if _lives(_owner(fd)):
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False
    return True


def _owner(fd: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(fd, 4096, 0) or b"{}")
    except ValueError:
        return {}  # its owner was cut short while writing
    return found if isinstance(found, dict) else {}


def _lives(owner: dict[str, Any]) -> bool:
    """A process that is surely another one's, now. This process may have left its own name when it was interrupted."""
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid == os.getpid() or owner.get("boot") != boot_id():
        return False
    return start_ticks(pid) == owner.get("start") != 0


def _write(fd: int, content: dict[str, Any]) -> None:
    line = json.dumps(content).encode() if content else b""
    os.ftruncate(fd, 0)
    os.pwrite(fd, line, 0)


def _busy(owner: dict[str, Any], path: Path) -> NodeBusy:
    who = f"pid {owner['pid']}: {owner.get('doing', '')}" if "pid" in owner else "not known"
    return NodeBusy(
        f"another redline is changing this box ({who})",
        why=f"it holds {path}",
        fix="wait until it is done; its lock goes away when it ends",
    )
