"""Who writes a run: enough to tell later, from another process, whether the writer is still there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from redline.node.lock import boot_id, start_ticks


def identity(pid: int | None = None) -> dict[str, Any]:
    """pid, when that process started (clock ticks since boot), the boot and the pid namespace."""
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "start_ticks": start_ticks(pid), "boot_id": boot_id(), "pid_namespace": _namespace()}


def alive(process: dict[str, Any]) -> bool:
    """False when the process of `identity()` is gone for certain; True when it lives or nobody can tell from here."""
    if process.get("boot_id") != boot_id():
        return False
    if process.get("pid_namespace") != _namespace():
        return True
    return process.get("start_ticks") == start_ticks(int(process.get("pid", 0))) != 0


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
