"""C that redline brings as source, compiled where it runs when it is first needed, and kept.

A wheel could only carry code for the oldest machine that it may meet, and would have to be built for each kind.
Compiling takes a second or two at most, once per version of the source, compiler, flags and CPU. Whoever asks has
another way where there is no compiler.
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
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 60.0
ENOUGH = 200
_one_at_a_time = threading.Lock()


class NoCompiler(Exception):
    """Why there is no compiled code here."""


def build(source: Path, flags: Sequence[str], folder: Path | None = None) -> ctypes.CDLL:
    """`source` compiled, or found compiled in `folder` (by default redline's in the user's cache); or `NoCompiler`."""
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler("no C compiler")
    folder = folder or cache()
    try:
        found = Path(compiler).resolve()
        about = found.stat()
        version = f"{found} {about.st_size} {about.st_mtime_ns}"  # asking it would take longer than all the rest
        machine = cpu() if "-march=native" in flags else platform.machine()
        key = hashlib.sha256("\0".join((source.read_text(), version, *flags, machine)).encode()).hexdigest()[:16]
        file = folder / f"{source.stem}-{key}.so"
        with _one_at_a_time:
            if not file.exists():
                _compile(compiler, source, flags, file)
        return ctypes.CDLL(str(file))
    except OSError as error:
        raise NoCompiler(f"{compiler}: {error}") from error


def cache() -> Path:
    """Raises `NoCompiler` for a user without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "redline"
    except RuntimeError as error:
        raise NoCompiler("no home directory to keep what is compiled in: set XDG_CACHE_HOME") from error


def cpu() -> str:
    """What `-march=native` depends on; a home directory may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    told = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU ")
    return platform.machine() + "".join(line for line in lines if line.startswith(told) and "MHz" not in line)


def _compile(compiler: str, source: Path, flags: Sequence[str], file: Path) -> None:
    """Under another name first: several processes may start at once, and a library must never be half there."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(".so", f"{source.stem}-", file.parent)
    os.close(number)
    try:
        _run([compiler, *flags, "-shared", "-fPIC", "-o", name, str(source)])
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
