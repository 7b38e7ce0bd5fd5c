"""Records what would be compiled for compute capability 9.0, on a box without a GPU: each launch's key, as Triton makes
it from types, constants, alignment and options. Nothing is computed; results are zeros."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime import jit

RESULTS = ("out", "q_out")
HOPPER = GPUTarget("cuda", 90, 32)


class Launches:
    """`keys`: kernel's name and what its machine code depends on, of every launch so far."""

    def __init__(self) -> None:
        self.keys: set[tuple[str, str]] = set()
        self._backend = make_backend(HOPPER)
        self._binders: dict[Any, Any] = {}

    def run(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        if kernel not in self._binders:
            made = jit.create_function_from_signature(kernel.signature, kernel.params, self._backend)
            self._binders[kernel] = made
        bound, kinds, given = self._binders[kernel](*args, **options)
        self.keys.add((kernel.fn.__name__, f"{kinds} {sorted(given.items())}"))
        for name in RESULTS:
            if name in bound:
                bound[name].zero_()


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    launches = Launches()
    with monkeypatch.context() as patch:
        patch.setattr(
            jit.JITFunction,
            "run",
            lambda kernel, *args, grid, warmup, **options: launches.run(
                kernel, *args, grid=grid, warmup=warmup, **options
            ),
        )
        yield launches
