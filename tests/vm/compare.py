"""What differs between two states of the machine, in words; and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

State = Mapping[str, Mapping[str, str]]


def digest(state: State) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def differing(before: State, now: State, *, missing: bool = True) -> list[str]:
    """One line for each path that is not the same. `missing`: also those that only one of them has."""
    lines = []
    for kind in before:
        old, new = before[kind], now[kind]
        paths = set(old) | set(new) if missing else set(old) & set(new)
        lines += [
            f"{path}: {old.get(path, 'not there')} -> {new.get(path, 'not there')}"
            for path in sorted(paths)
            if old.get(path) != new.get(path)
        ]
    return lines
