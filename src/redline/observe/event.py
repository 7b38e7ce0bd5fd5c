"""What crosses from `observe` to `store`: something that took place, from one instant to another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Monotonic ns; `kind` is one of `kernel_script.KINDS` or `xid`. `who` is who did it, or '' where nobody knows."""

    kind: str
    began_ns: int
    ended_ns: int
    who: str = ""
    text: str = ""
