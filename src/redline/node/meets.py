"""Whether a value is what a row wants."""

from __future__ import annotations

from redline.node.tree import cpu_list
from redline.node.tunables.tunable import Want


def is_met(value: str, want: Want) -> bool | None:
    """Whether `value` is what `want` asks for; None when the two cannot be compared."""
    if want.op == "equals":
        return value == want.written
    if want.op == "one of":
        return value in want.values
    if want.op == "contains":
        return set(want.values) <= set(value.split())
    if want.op == "within":
        return set(cpu_list(value)) <= set(cpu_list(want.written)) if value else None
    try:
        number, limit = _number(value), _number(want.written)
    except ValueError:
        return None
    return number >= limit if want.op == "at least" else number <= limit


def _number(word: str) -> float:
    """`max`, `unlimited`: more than any number."""
    return float("inf") if word in ("max", "unlimited") else float(word)
