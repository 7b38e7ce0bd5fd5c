"""What was compiled or captured after the engine had started to serve. Each such thing holds up everybody, for a second
or more, and no request's own numbers say why; so it is counted, and told in the log with the kernel's name.

Counted for the whole process, as kernels are kept for it. Imports neither torch nor Triton.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class Late:
    """Grow only."""

    late_compiles: int = 0
    """Kernels that were compiled, or loaded from the cache on disk."""
    late_compile_s: float = 0.0
    late_captures: int = 0
    late_capture_s: float = 0.0


COUNTED = Late()
_serving = False
_watched = False
_begun: dict[str, float] = {}


def starting() -> None:
    """What comes now belongs to the start of an engine."""
    global _serving
    _serving = False


def serving() -> None:
    """What comes now is late. Kernels are counted where Triton is loaded and has hooks for it (3.4 and later)."""
    global _serving, _watched
    _serving = True
    if _watched:
        return
    runtime: Any = getattr(sys.modules.get("triton.knobs"), "runtime", None)
    if not hasattr(runtime, "jit_post_compile_hook"):
        return
    before, after = runtime.jit_cache_hook, runtime.jit_post_compile_hook
    _watched = True

    def begins(**told: Any) -> Any:
        _begun[str(told["key"])] = time.perf_counter()
        return before(**told) if before is not None else None

    def ends(**told: Any) -> Any:
        compiled(told["fn"].name, str(told["key"]))
        return after(**told) if after is not None else None

    runtime.jit_cache_hook, runtime.jit_post_compile_hook = begins, ends


def compiled(name: str, key: str) -> None:
    """A kernel is there, of which `_begun` knows since when it was missing."""
    seconds = time.perf_counter() - _begun.pop(key, time.perf_counter())
    if _serving:
        COUNTED.late_compiles += 1
        COUNTED.late_compile_s += seconds
        log.warning("%s was compiled while serving, which took %.2f s: %s", name, seconds, key)


def captured(seconds: float) -> None:
    """A CUDA graph was captured."""
    if _serving:
        COUNTED.late_captures += 1
        COUNTED.late_capture_s += seconds
        log.warning("a CUDA graph was captured while serving, which took %.2f s", seconds)
