"""Who writes a run: enough to tell later, from another process, whether the writer is still there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def identity(pid: int | None = None) -> dict[str, Any]:
    """pid, when that process started (clock ticks since boot), the boot and the pid namespace."""
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "start_ticks": _start_ticks(pid), "boot_id": _boot_id(), "pid_namespace": _namespace()}


def alive(process: dict[str, Any]) -> bool:
    """False when the process of `identity()` is gone for certain; True when it lives or nobody can tell from here."""
    if process.get("boot_id") != _boot_id():
        return False
    if process.get("pid_namespace") != _namespace():
        return True
    return process.get("start_ticks") == _start_ticks(int(process.get("pid", 0))) != 0


def _start_ticks(pid: int) -> int:
    """0 for a process that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
