"""A dashboard as data: the same panels and queries become Grafana's JSON and redline's own picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

UNITS = {
    "s": "s",
    "share": "percentunit",
    "bytes": "bytes",
    "bytes/s": "Bps",
    "1/s": "cps",
    "requests/s": "reqps",
    "tokens/s": "suffix: tok/s",
    "tokens/J": "suffix: tok/J",
    "W": "watt",
    "°C": "celsius",
    "MHz": "suffix: MHz",
    "x": "suffix: ×",
    "cores": "suffix: cores",
    "": "short",
}
"""What is shown beside a number, and Grafana's name of it."""

_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True)
class Query:
    """`legend` names labels in double braces, as Grafana does. `$variable` in `expr` is one of the board's."""

    expr: str
    legend: str

    def name(self, labels: dict[str, str]) -> str:
        """The legend of one series."""
        return " ".join(_LABEL.sub(lambda found: labels.get(found[1], ""), self.legend).split())


@dataclass(frozen=True)
class Panel:
    """`text` says how to read it. `most` is the end of the axis where there is one."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    text: str = ""
    most: float | None = None
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """`uid` never changes; `version` is raised with every change of the panels. `variables`: name and query."""

    uid: str
    title: str
    version: int
    text: str
    rows: tuple[Row, ...]
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row.panels

    def anything(self, expr: str) -> str:
        """The query with every variable at `All`."""
        for name, _ in self.variables:
            expr = expr.replace(f"${name}", ".*")
        return expr


def panel(title: str, unit: str, *queries: tuple[str, str], text: str = "", most: float | None = None) -> Panel:
    return Panel(title, unit, tuple(Query(*query) for query in queries), text, most)
