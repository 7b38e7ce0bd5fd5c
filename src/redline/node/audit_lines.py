"""An audit as a person wants it, equal places on one line; and the whole of it as JSON-like data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redline.node.audit import BAD
from redline.node.judge import Judged
from redline.node.tunables.tunable import Place, Severity

SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high")


@dataclass
class Line:
    """Places of one row that say the same."""

    judged: Judged
    places: list[Place] = field(default_factory=list)
    of: int = 0
    """Places that the row has in all."""

    @property
    def where(self) -> str:
        """`3 of 128: cpu0, cpu1, …`; '' for a row with one nameless place."""
        names = sorted((place.name for place in self.places if place.name), key=_natural)
        if not names:
            return ""
        if len(names) == 1:
            return names[0] if self.of == 1 else f"{names[0]}, 1 of {self.of}"
        count = f"all {self.of}" if len(names) == self.of else f"{len(names)} of {self.of}"
        shown = f"{names[0]}, {names[1]}" if len(names) == 2 else f"{names[0]} … {names[-1]}"
        return f"{count}: {shown}"

    @property
    def change(self) -> str:
        """`powersave → performance`, or what is there."""
        value, want = "?" if self.judged.value is None else self.judged.value or "''", self.judged.want
        if want is None or self.judged.state == "ok":
            return "" if self.judged.value is None else value
        wanted = " | ".join((*want.values[:3], "…") if len(want.values) > 4 else want.values)
        sign = "" if wanted == "0" else {"at least": "≥ ", "at most": "≤ ", "within": "in "}.get(want.op, "")
        return f"{value} → {sign}{wanted}"


def _natural(name: str) -> list[tuple[int, str]]:
    """policy2 before policy10."""
    return [(int(part or 0) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def lines(judged: Sequence[Judged]) -> list[Line]:
    """In the table's order; within a row the most frequent answer last, so that exceptions are seen."""
    totals = Counter(each.tunable.id for each in judged)
    found: dict[tuple[Any, ...], Line] = {}
    for each in judged:
        key = (each.tunable.id, each.state, each.value, each.want, each.why, each.owner)
        line = found.setdefault(key, Line(each, of=totals[each.tunable.id]))
        line.places.append(each.place)
    return list(found.values())


def is_bad(judged: Judged, least: Severity = "low") -> bool:
    """Not as the profile wants it, and of at least that weight."""
    return judged.state in BAD and SEVERITIES.index(judged.tunable.severity) >= SEVERITIES.index(least)


def as_data(judged: Judged) -> dict[str, Any]:
    """One judgement for `--json`."""
    tunable, want = judged.tunable, judged.want
    return {
        "id": tunable.id,
        "title": tunable.title,
        "group": tunable.group,
        "scope": tunable.scope,
        "place": judged.place.name,
        "path": judged.place.path,
        "state": judged.state,
        "severity": tunable.severity,
        "value": judged.value,
        "want": None if want is None else {"op": want.op, "values": list(want.values)},
        "why": judged.why,
        "owner": judged.owner,
        "effect": tunable.effect,
        "advice": tunable.advice,
        "signal": tunable.signal,
        "written": tunable.write != "none",
        "persist": tunable.persist,
        "needs_reboot": tunable.needs_reboot,
        "risk": tunable.risk,
        "sources": [source.__dict__ for source in tunable.sources],
    }
