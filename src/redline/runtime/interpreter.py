"""How Python is set in a process whose engine's thread shares it with others: the server's, and the engine's own."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 0.0001
"""Between two threads. Python's 5 ms are several steps of a small model; and the engine's thread asks for the
interpreter anew after every call into CUDA, some eight times a step."""
GARBAGE_AFTER = 20_000
"""New containers between two looks of the garbage collector: a request makes some hundred, and hardly ever a cycle."""


def begin() -> None:
    """Before the start-up, which makes hundreds of thousands of objects for good."""
    gc.disable()
    sys.setswitchinterval(SWITCH_S)


def keep_what_is_there() -> None:
    """What the start-up made stays: the garbage collector, off until now, need not walk it in the middle of a step."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, 10, 10)
    gc.enable()
