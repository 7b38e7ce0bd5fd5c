"""The C of the CPU's small-model pass, compiled for this very CPU; without a compiler the torch tier does the work."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from pathlib import Path

from redline.compiled import NoCompiler, build

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math")


def library(folder: Path | None = None) -> ctypes.CDLL:
    """Compiled, or found compiled in `folder` (default: redline's in the user's cache). Raises `NoCompiler`."""
    return build(SOURCE, FLAGS, folder)


def begin() -> None:
    """Compiles in a thread of its own, while the caller imports torch, which takes as long."""

    def quietly() -> None:
        with suppress(NoCompiler):
            library()

    threading.Thread(target=quietly, name="redline-compile", daemon=True).start()
