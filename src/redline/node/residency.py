"""How much of a file lies in the page cache, and how to put it out of it, without root and without reading it.

`cachestat(2)` counts pages (Linux 6.5); older kernels, and filters that hide new system calls, are asked with
`mincore(2)`. Both tell of files that this user owns or may write; for others mincore says that all of them are there,
so that such an answer is None here.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
from pathlib import Path

CACHESTAT = 451
"""The same number on every architecture."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong)
]  # fmt: skip
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_MAP_FAILED = ctypes.c_void_p(-1).value
_MINCORE_STEP = 1 << 30


def resident_bytes(path: Path) -> int | None:
    """Bytes of `path` in the page cache, in whole pages but never more than its size; None when nobody may tell.

    Raises OSError when the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        pages = _by_cachestat(descriptor)
        if pages is None:
            pages = _by_mincore(descriptor, size)
        return None if pages is None else min(size, pages * mmap.PAGESIZE)
    finally:
        os.close(descriptor)


def _by_cachestat(descriptor: int) -> int | None:
    """Pages in the cache. A length of 0 means to the end."""
    span = (ctypes.c_uint64 * 2)(0, 0)
    counts = (ctypes.c_uint64 * 5)()  # cached, dirty, under writeback, evicted, recently evicted
    done = _libc.syscall(
        *(ctypes.c_long(CACHESTAT), ctypes.c_uint(descriptor)),
        *(ctypes.byref(span), ctypes.byref(counts), ctypes.c_uint(0)),
    )
    return int(counts[0]) if done == 0 else None


def _by_mincore(descriptor: int, size: int) -> int | None:
    if not _may_ask_mincore(os.fstat(descriptor), descriptor):
        return None
    pages = 0
    for start in range(0, size, _MINCORE_STEP):
        found = _mincore(descriptor, start, min(_MINCORE_STEP, size - start))
        if found is None:
            return None
        pages += found
    return pages


def _may_ask_mincore(of: os.stat_result, descriptor: int) -> bool:
    """Since Linux 5.2 the kernel answers "all of it" to those who neither own the file nor may write it."""
    return of.st_uid == os.geteuid() or os.access(f"/proc/self/fd/{descriptor}", os.W_OK)


def _mincore(descriptor: int, start: int, length: int) -> int | None:
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, start)
    if address == _MAP_FAILED:
        return None
    try:
        flags = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        if _libc.mincore(address, length, flags) != 0:
            return None
        return len(flags.raw) - flags.raw.count(0)
    finally:
        _libc.munmap(address, length)


def drop(path: Path) -> int | None:
    """Writes the file out and asks the kernel to forget it; what is still resident then, in bytes (None: unknown).

    Pages that some process has mapped stay. Affects no other file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)  # dirty pages are not dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return resident_bytes(path)
