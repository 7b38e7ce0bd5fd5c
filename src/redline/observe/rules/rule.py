"""Rules as data: what Prometheus computes ahead (Record) and what it rings for (Alert), grouped by how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from redline.errors import UsageError

Severity = Literal["critical", "warning", "info"]
"""critical: wake somebody; warning: this working day; info: shown, rings for nobody."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Record:
    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"record": self.name, "expr": self.expr} | ({"labels": dict(self.labels)} if self.labels else {})


@dataclass(frozen=True)
class Term:
    """One side of an alert's condition: `expr` always has a value where there is something to watch, `fires` is the
    comparison that makes it ring."""

    expr: str
    fires: str

    @property
    def condition(self) -> str:
        return f"({self.expr}) {self.fires}"


@dataclass(frozen=True)
class Alert:
    """Rings when every term holds for the labels in `on` (all labels when empty) for `hold`."""

    name: str
    terms: tuple[Term, ...]
    hold: str
    severity: Severity
    summary: str
    meaning: str
    todo: str
    on: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def expr(self) -> str:
        joint = f" and on ({', '.join(self.on)}) " if self.on else " and "
        return joint.join(term.condition for term in self.terms)

    def as_dict(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {"summary": self.summary, "meaning": self.meaning, "todo": self.todo},
        }


@dataclass(frozen=True)
class Group:
    """`every` is the evaluation interval."""

    name: str
    rules: tuple[Record | Alert, ...]
    every: str = "15s"

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "interval": self.every, "rules": [rule.as_dict() for rule in self.rules]}

    @property
    def alerts(self) -> tuple[Alert, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule, Alert))


def seconds(length: str) -> float:
    """Of Prometheus' `90s`, `5m`, `6h`, `3d`."""
    number, unit = length[:-1], length[-1:]
    if unit not in _UNITS or not number.isdigit():
        raise UsageError(f"{length!r} is no length of time", fix="such as 30s, 5m, 1h")
    return float(int(number) * _UNITS[unit])
