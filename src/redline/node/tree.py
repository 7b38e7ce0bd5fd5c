"""Reads /proc and /sys, or a recorded copy of them: nothing here writes, and what is absent is an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Fact = dict[str, Any]


def skipped(reason: str, how: str = "") -> Fact:
    """The value of a fact that this box does not tell."""
    return {"skipped": reason, "how": how}


def is_skipped(value: Any) -> bool:
    return isinstance(value, dict) and "skipped" in value


def text(root: Path, path: str) -> str | None:
    """Content of `path` under `root`, stripped; None when it cannot be read."""
    try:
        return (root / path).read_text(errors="replace").strip()
    except OSError:
        return None


def number(root: Path, path: str) -> int | None:
    """Content of `path` as an integer; None when it cannot be read or is none (`max`)."""
    content = text(root, path)
    try:
        return int(content) if content else None
    except ValueError:
        return None


def fields(content: str | None, separator: str = ":") -> dict[str, str]:
    """`name: value` lines; the first of equal names wins."""
    found: dict[str, str] = {}
    for line in (content or "").splitlines():
        name, between, value = line.partition(separator)
        if between:
            found.setdefault(name.strip(), value.strip())
    return found


def chosen(content: str | None) -> str | None:
    """The bracketed word of `always [madvise] never`."""
    if content is None:
        return None
    _, bracket, rest = content.partition("[")
    return rest.partition("]")[0] if bracket else content


def cpu_list(content: str | None) -> list[int]:
    """`0-3,8` as [0, 1, 2, 3, 8]."""
    cpus: list[int] = []
    for part in (content or "").replace("\n", "").split(","):
        low, dash, high = part.partition("-")
        if low.strip().isdigit():
            cpus += range(int(low), int(high if dash else low) + 1)
    return cpus


def short_list(cpus: list[int]) -> str:
    """[0, 1, 2, 3, 8] as `0-3,8`."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][1] + 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in parts)
