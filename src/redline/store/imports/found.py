"""What a file of another tool holds, and a reader of its fields whose errors say which field is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redline.errors import UsageError
from redline.load.record import RequestRecord
from redline.spec.load import LoadPoint
from redline.units import NS_PER_S

ORIGIN_NS = NS_PER_S
"""Where the first request is put: files hold wall clocks or clocks of another boot, of which only distances mean
something; 0 would mean that it never happened."""
RATES = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s", "sent_per_s", "in_flight")
"""What a file without start times cannot give."""


@dataclass(frozen=True)
class Imported:
    """One load point that another tool measured.

    `summary` is the tool's own summary under its own keys. `missing` names redline's metrics that the file cannot
    give; `notes` says why in words. `closing_events` is of one answer, see `analyse/peers/answers.py`.
    """

    tool: str
    version: str
    model: str
    load: LoadPoint
    records: list[RequestRecord]
    summary: dict[str, Any]
    duration_s: float = 0.0
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    closing_events: int = 0

    @property
    def began_ns(self) -> int:
        return min((record.intended_ns or record.sent_ns for record in self.records), default=ORIGIN_NS)

    @property
    def ended_ns(self) -> int:
        last = max((record.finished_ns for record in self.records), default=ORIGIN_NS)
        return max(last, self.began_ns + round(self.duration_s * NS_PER_S))


@dataclass(frozen=True)
class Fields:
    """A JSON value, where it stands in which file. Everything asked of it is there and of the right kind, or else a
    UsageError names file and field."""

    value: Any
    file: Path
    place: str = ""

    def __getitem__(self, key: str | int) -> Fields:
        found = self.get(key)
        if found is None:
            raise self.wrong(f"has no {key!r}")
        return found

    def get(self, key: str | int) -> Fields | None:
        """None when it lacks or is null."""
        place = f"{self.place}[{key}]" if isinstance(key, int) else f"{self.place}.{key}".lstrip(".")
        if isinstance(self.value, dict):
            found = self.value.get(key)
        elif isinstance(self.value, list) and isinstance(key, int):
            found = self.value[key] if key < len(self.value) else None
        else:
            raise self.wrong(f"is no {'list' if isinstance(key, int) else 'mapping'}")
        return None if found is None else Fields(found, self.file, place)

    def at(self, path: str) -> Fields | None:
        """A value deep inside, `a.b.c`; None when any step lacks."""
        here: Fields | None = self
        for step in path.split("."):
            here = here.get(step) if here is not None and isinstance(here.value, dict) else None
        return here

    def number(self, default: float | None = None) -> float:
        if isinstance(self.value, (int, float)) and not isinstance(self.value, bool) and math.isfinite(self.value):
            return float(self.value)
        if default is not None:
            return default
        raise self.wrong(f"is no number: {str(self.value)[:60]!r}")

    def ns(self) -> int:
        """Seconds as nanoseconds."""
        return round(self.number() * NS_PER_S)

    def whole(self) -> int:
        return round(self.number())

    def text(self) -> str:
        return str(self.value)

    def items(self) -> Iterator[Fields]:
        """The entries of a list."""
        if not isinstance(self.value, list):
            raise self.wrong("is no list")
        return (Fields(one, self.file, f"{self.place}[{i}]") for i, one in enumerate(self.value))

    def wrong(self, what: str) -> UsageError:
        place = f"{self.file}: {self.place}" if self.place else str(self.file)
        return UsageError(
            f"{place} {what}",
            why="the file is not as the tool writes it, or comes from a version of it that redline does not know",
            fix="import the file as the tool wrote it; docs/peers.md lists the formats and versions",
        )


def number_at(found: Fields, path: str, default: float = 0.0) -> float:
    inner = found.at(path)
    return default if inner is None else inner.number(default)


def text_at(found: Fields, path: str, default: str = "") -> str:
    inner = found.at(path)
    return default if inner is None else inner.text()


def rebased(records: list[RequestRecord]) -> list[RequestRecord]:
    """The same, moved in time so that the first request stands at ORIGIN_NS."""
    shift = ORIGIN_NS - min((record.sent_ns for record in records if record.sent_ns), default=ORIGIN_NS)
    for record in records:
        record.chunk_ns = [at + shift for at in record.chunk_ns]
        for name in ("intended_ns", "sent_ns", "first_byte_ns", "answer_first_ns", "finished_ns"):
            at = getattr(record, name)
            setattr(record, name, at + shift if at else 0)
    return records


@dataclass
class Answered:
    """The times of one answer as a file gives them, in ns, made into a record."""

    sent_ns: int
    chunk_ns: list[int] = field(default_factory=list)
    chunk_tokens: list[int] = field(default_factory=list)
    finished_ns: int = 0
    intended_ns: int = 0

    def record(self, index: int, **others: Any) -> RequestRecord:
        chunks = self.chunk_ns
        return RequestRecord(
            index=index,
            intended_ns=self.intended_ns or self.sent_ns,
            sent_ns=self.sent_ns,
            answer_first_ns=chunks[0] if chunks else 0,
            finished_ns=self.finished_ns or (chunks[-1] if chunks else 0),
            chunk_ns=chunks,
            chunk_tokens=self.chunk_tokens,
            stamp="user",
            **others,
        )


def spread(tokens: int, chunks: int) -> list[int]:
    """How many tokens each chunk carried, when a file does not say: as evenly as can be."""
    if not chunks:
        return []
    each, more = divmod(tokens, chunks)
    return [each + (i < more) for i in range(chunks)]
