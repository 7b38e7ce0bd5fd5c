"""Spans of the engine's own tracing, where the store has them for a request."""

from __future__ import annotations

from dataclasses import dataclass

from redline.store.browse import Browser, Whereabouts


@dataclass(frozen=True)
class Span:
    """`start_ms` from when the request was due; `depth` 0 is a span of its own."""

    name: str
    start_ms: float
    ms: float
    depth: int
    attributes: str


def spans_of(reader: Browser, found: Whereabouts) -> list[Span]:
    """In the order of their start; none where the store keeps none."""
    return []
