from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from redline.errors import Unsupported
from redline.node import mempolicy
from redline.node.mempolicy import bind_memory

FILTERED = """
import ctypes, struct, sys
from redline.errors import Unsupported
from redline.node.mempolicy import _NUMBERS, bind_memory
import platform
# a filter of system calls that answers EPERM to set_mempolicy alone, as Docker's does without CAP_SYS_NICE
def op(code, k, jt=0, jf=0): return struct.pack("HBBI", code, jt, jf, k)
program = op(0x20, 0) + op(0x15, _NUMBERS[platform.machine()], 0, 1) + op(0x06, 0x00050001) + op(0x06, 0x7FFF0000)
code = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
value = ctypes.c_ulong
if libc.prctl(38, value(1), value(0), value(0), value(0)) or libc.prctl(
    22, value(2), ctypes.byref(Filter(4, ctypes.addressof(code))), value(0), value(0)
):
    print("no seccomp"); sys.exit()
try:
    bind_memory([0])
    print("bound")
except Unsupported as error:
    print(error.what, "|", error.why, "|", error.fix)
"""


def test_a_filter_of_system_calls_is_told_as_one() -> None:
    done = subprocess.run([sys.executable, "-c", FILTERED], capture_output=True, text=True, check=True)
    if "no seccomp" in done.stdout:
        pytest.skip("seccomp filters cannot be set here")
    assert "Operation not permitted" in done.stdout
    assert "SYS_NICE" in done.stdout
    assert "--cpus-only" in done.stdout


def test_an_architecture_whose_number_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "m68k")
    with pytest.raises(Unsupported, match="m68k"):
        bind_memory([0])


def test_the_numbers_are_those_of_the_kernels_tables() -> None:
    """arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h, powerpc's and s390's syscall.tbl."""
    assert mempolicy._NUMBERS == {"x86_64": 238, "aarch64": 237, "riscv64": 237, "ppc64le": 261, "s390x": 270}
