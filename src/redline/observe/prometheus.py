"""Prometheus text: lines in, series out. Made for pages that are asked for once a second by a client with other work.

What is no sample (a comment, a broken line) is left out and counted: a page that is half understood says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_BRACES = r'\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}'
_LINE = re.compile(rf"({_NAME})[ \t]*({_BRACES})?[ \t]*(\S+)(?:[ \t]+-?\d+(?:\.\d+)?)?(?:[ \t]+#.*)?")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\\n]|\\.)*)"[ \t]*(,|$)')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}
_SPECIAL = {"nan": math.nan, "+inf": math.inf, "inf": math.inf, "-inf": -math.inf}
_PARTS = ("_bucket", "_sum", "_count")

_KNOWN_MAX = 20_000

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One value. `kind` is that of its family: counter, gauge, histogram, summary or untyped."""

    name: str
    labels: Labels
    value: float
    kind: str = "untyped"

    @property
    def key(self) -> str:
        """As the page writes it, labels in order of their names."""
        inner = ",".join(f'{name}="{_escape(value)}"' for name, value in self.labels)
        return f"{self.name}{{{inner}}}" if inner else self.name

    def label(self, name: str) -> str:
        return next((value for found, value in self.labels if found == name), "")


@dataclass
class Page:
    """`broken` counts lines that are neither comments nor samples."""

    series: list[Series] = field(default_factory=list)
    broken: int = 0

    @cached_property
    def _named(self) -> dict[str, list[Series]]:
        """Asked for once the page is complete."""
        found: dict[str, list[Series]] = {}
        for one in self.series:
            found.setdefault(one.name, []).append(one)
        return found

    def total(self, name: str) -> float | None:
        """Sum over all labels (engines, ranks, models); None when there is no such series."""
        values = self._values(name)
        return sum(values) if values else None

    def mean(self, name: str) -> float | None:
        """Of a share that each engine has: mean over all labels; None when there is no such series."""
        values = self._values(name)
        return sum(values) / len(values) if values else None

    def _values(self, name: str) -> list[float]:
        return [one.value for one in self._named.get(name, ()) if not math.isnan(one.value)]

    def buckets(self, family: str) -> dict[float, float]:
        """Cumulative counts of a histogram by upper bound, over all labels."""
        found: dict[float, float] = {}
        for one in self._named.get(f"{family}_bucket", ()):
            if (bound := _number(one.label("le"))) is not None:
                found[bound] = found.get(bound, 0.0) + one.value
        return dict(sorted(found.items()))


def parse(text: str) -> Page:
    """Everything a page says, in its order."""
    return Parser().parse(text)


class Parser:
    """For pages of one server, one after the other: what a line says beside its value is taken apart once."""

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}
        self._known: dict[str, tuple[str, Labels, str]] = {}

    def parse(self, text: str) -> Page:
        page = Page()
        for raw in text.split("\n"):
            line = raw.strip()
            if not line:
                continue
            if line.startswith("#"):
                self._comment(line)
                continue
            head, _, last = line.rpartition(" ")
            known, value = self._known.get(head), _number(last)
            if known is not None and value is not None:
                page.series.append(Series(known[0], known[1], value, known[2]))
                continue
            one = self._line(line, head)
            if one is None:
                page.broken += 1
            else:
                page.series.append(one)
        return page

    def _comment(self, line: str) -> None:
        words = line.split(None, 3)
        if len(words) == 4 and words[1] == "TYPE":
            kind = words[3].strip().lower()
            if self._kinds.get(words[2], kind) != kind:
                self._known.clear()
            self._kinds[words[2]] = kind

    def _line(self, line: str, head: str) -> Series | None:
        match = _LINE.fullmatch(line)
        value = _number(match[3]) if match else None
        labels = _labels(match[2]) if match else None
        if match is None or value is None or labels is None:
            return None
        kind = _kind(match[1], self._kinds)
        if match.end(3) == len(line) and match.end(2 if match[2] else 1) == len(head) and len(self._known) < _KNOWN_MAX:
            self._known[head] = (match[1], labels, kind)  # nothing but a value follows: no time, no exemplar
        return Series(match[1], labels, value, kind)


def _kind(name: str, kinds: dict[str, str]) -> str:
    if name in kinds:
        return kinds[name]
    for part in _PARTS:
        if name.endswith(part) and kinds.get(name.removesuffix(part)) in ("histogram", "summary"):
            return kinds[name.removesuffix(part)]
    # OpenMetrics names the family without its ending
    for part in ("_total", "_created"):
        if name.endswith(part) and name.removesuffix(part) in kinds:
            return kinds[name.removesuffix(part)] if part == "_total" else "gauge"
    return "untyped"


def _labels(text: str | None) -> Labels | None:
    """Sorted by name; None when the braces hold something else."""
    if not text:
        return ()
    inner = text[1:-1].strip()
    found: list[tuple[str, str]] = []
    for match in _matches(inner):
        if match is None:
            return None
        found.append((match[1], _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[0]), match[2])))
    return tuple(sorted(found))


def _matches(inner: str) -> Iterator[re.Match[str] | None]:
    at = 0
    while at < len(inner):
        match = _LABEL.match(inner, at)
        yield match
        if match is None:
            return
        at = match.end()


def _number(text: str) -> float | None:
    special = _SPECIAL.get(text.lower())
    if special is not None:
        return special
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
