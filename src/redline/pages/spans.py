"""Beside a request: the engine's spans of it, and what took place on the box meanwhile, where the store has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redline.analyse.explain.causes import CAUSES
from redline.report.evidence import box_rows
from redline.store.browse import Browser, Whereabouts
from redline.store.rows import EventRow
from redline.units import NS_PER_MS

MOST, MOST_EVENTS = 200, 15


@dataclass(frozen=True)
class Span:
    """`start_ms` from when the request was due. `left` and `width` are in percent of its life, `depth` counts the spans
    around it; `by` is the service, or who or what did it."""

    name: str
    by: str
    start_ms: float
    ms: float
    left: float
    width: float
    depth: int = 0
    attributes: tuple[tuple[str, str], ...] = ()


def spans_of(reader: Browser, found: Whereabouts, outcome: Mapping[str, Any]) -> list[Span]:
    """In the order of their start. A request's trace is the load point's prefix and the request's index."""
    prefix = str(outcome.get("trace_prefix") or "")
    if not prefix:
        return []
    rows = reader.spans(found.trial_id, f"{prefix}{found.record.index:016x}")[:MOST]
    parents = {row.span_id: row.parent_id for row in rows}
    return [
        _placed(found, row.name, row.service, row.began_ns, row.ended_ns, _depth(row.span_id, parents), row.attributes)
        for row in rows
    ]


def events_of(reader: Browser, found: Whereabouts) -> list[Span]:
    """The longest of what reaches into the life of the request, in the order of their start."""
    rows = reader.events(found.trial_id, found.record.intended_ns, _end(found))
    longest = sorted(rows, key=lambda row: row.began_ns - row.ended_ns)[:MOST_EVENTS]
    longest.sort(key=lambda row: row.began_ns)
    return [_placed(found, _what(row), row.who, row.began_ns, row.ended_ns) for row in longest]


def _what(row: EventRow) -> str:
    """As `redline explain` calls it, and the details."""
    cause = next((cause.text for cause in CAUSES if row.kind in cause.events), row.kind)
    return f"{cause}: {row.text}" if row.text else cause


def _end(found: Whereabouts) -> int:
    record = found.record
    return max(record.finished_ns, record.sent_ns, record.intended_ns + 1, *record.chunk_ns[-1:])


def _depth(span: str, parents: Mapping[str, str]) -> int:
    """How many known spans are around it; a ring of parents ends where it closes."""
    around: list[str] = []
    while (span := parents.get(span, "")) in parents and span not in around:
        around.append(span)
    return len(around)


def _placed(
    found: Whereabouts, name: str, by: str, began: int, ended: int, depth: int = 0, attributes: Any = None
) -> Span:
    due = found.record.intended_ns
    whole = _end(found) - due
    left, right = (100 * min(max((at - due) / whole, 0.0), 1.0) for at in (began, ended))
    start, ms = (began - due) / NS_PER_MS, (ended - began) / NS_PER_MS
    return Span(name, by, start, ms, round(left, 3), round(right - left, 3), depth, tuple(box_rows(attributes or {})))
