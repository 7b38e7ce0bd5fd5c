"""Why did it die: known lines in an engine's log, what they mean, and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """`tag` is empty when nothing known matched; `line` is the line that gave it away."""

    tag: str
    meaning: str
    fix: str
    line: str


def diagnose(log: str, exit_status: int | None) -> Diagnosis:
    """The first row of the table that matches the log or the exit status (negative: the signal that killed it)."""
    for tag, pattern, meaning, fix in TABLE:
        if found := re.search(pattern, log):
            start, end = log.rfind("\n", 0, found.start()) + 1, log.find("\n", found.end())
            return Diagnosis(tag, meaning, fix, log[start : end if end >= 0 else None].strip()[:300])
    return Diagnosis("", "", "", "")


TABLE: list[tuple[str, str, str, str]] = [
    ("port-in-use", r"[Aa]ddress already in use", "", ""),
]
