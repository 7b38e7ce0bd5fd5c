"""The C of the CPU's small-model pass, compiled for this very CPU when it is first needed, and kept.

A wheel could only carry code for the oldest CPU that it may meet. Compiling takes about a second, once per version of
the source, compiler and CPU; where there is no compiler, the torch tier does the work.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math")
LIMIT_S = 60.0
ENOUGH = 200
_one_at_a_time = threading.Lock()


class NoCompiler(Exception):
    """Why there is no compiled code here."""


def library(folder: Path | None = None) -> ctypes.CDLL:
    """Compiled, or found compiled in `folder` (default: redline's in the user's cache). Raises `NoCompiler`."""
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler("no C compiler")
    folder = folder or cache()
    try:
        version = _run([compiler, "--version"])
        key = hashlib.sha256("\0".join((SOURCE.read_text(), version, *FLAGS, cpu())).encode()).hexdigest()[:16]
        file = folder / f"native-{key}.so"
        with _one_at_a_time:
            if not file.exists():
                _compile(compiler, file)
        return ctypes.CDLL(str(file))
    except OSError as error:
        raise NoCompiler(f"{compiler}: {error}") from error


def begin() -> None:
    """Compiles in a thread of its own, while the caller imports torch, which takes as long."""

    def quietly() -> None:
        with suppress(NoCompiler):
            library()

    threading.Thread(target=quietly, name="redline-compile", daemon=True).start()


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "redline"


def cpu() -> str:
    """What `-march=native` depends on; a home directory may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    told = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU ")
    return platform.machine() + "".join(line for line in lines if line.startswith(told) and "MHz" not in line)


def _compile(compiler: str, file: Path) -> None:
    """Under another name first: several engines may start at once, and a library must never be half there."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(".so", "native-", file.parent)
    os.close(number)
    try:
        _run([compiler, *FLAGS, "-shared", "-fPIC", "-o", name, str(SOURCE)])
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise NoCompiler(f"{command[0]} took longer than {LIMIT_S:g} s") from late
    if done.returncode:
        raise NoCompiler(f"{command[0]}: {done.stderr.strip()[:ENOUGH]}")
    return done.stdout
