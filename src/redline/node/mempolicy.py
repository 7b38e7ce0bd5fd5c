"""Where a process's memory comes from: `set_mempolicy(2)`, which the C library does not wrap."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Collection

from redline.errors import Unsupported

MPOL_DEFAULT, MPOL_BIND = 0, 2
_NUMBERS = {"x86_64": 238, "aarch64": 237, "riscv64": 237, "ppc64le": 261, "s390x": 270}
_LONG_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)


def bind_memory(nodes: Collection[int]) -> None:
    """From now on this thread, its children and what it becomes by exec get pages from `nodes` alone.

    Raises Unsupported with the kernel's reason.
    """
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise Unsupported(f"memory is not bound on {platform.machine()}: its system call number is not known here")
    bits = (max(nodes) // _LONG_BITS + 1) * _LONG_BITS
    mask = (ctypes.c_ulong * (bits // _LONG_BITS))()
    for node in nodes:
        mask[node // _LONG_BITS] |= 1 << (node % _LONG_BITS)
    libc = ctypes.CDLL(None, use_errno=True)
    # the kernel reads one bit less than it is told
    arguments = (ctypes.c_long(number), ctypes.c_int(MPOL_BIND), ctypes.byref(mask), ctypes.c_ulong(bits + 1))
    if libc.syscall(*arguments) != 0:
        raise Unsupported(f"memory cannot be bound: {os.strerror(ctypes.get_errno())}", **_meaning(ctypes.get_errno()))


def _meaning(number: int) -> dict[str, str]:
    if number == errno.EPERM:
        why = "a filter of system calls forbids it; Docker's lets it pass with CAP_SYS_NICE only"
        return {"why": why, "fix": "docker run --cap-add SYS_NICE, or --cpus-only to bind the CPUs alone"}
    if number == errno.EINVAL:
        why = "none of these nodes is online, has memory and is allowed by the control group (cpuset.mems)"
        return {"why": why, "fix": "redline node facts shows the nodes; --cpus-only binds the CPUs alone"}
    if number == errno.ENOSYS:
        return {"why": "this kernel was built without NUMA", "fix": "--cpus-only"}
    return {}


def usual_memory() -> None:
    """Takes `bind_memory` back for this thread: pages come from the node that it runs on, as by default."""
    number = _NUMBERS.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(
            *(ctypes.c_long(number), ctypes.c_int(MPOL_DEFAULT), ctypes.c_void_p(), ctypes.c_ulong(0))
        )
