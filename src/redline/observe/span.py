"""What crosses from `observe` to `store`: one span of the engine, on the clock of the requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    """Ids are lower-case hex; `parent_id` is '' for a root. Times are monotonic ns."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any] = field(default_factory=dict)
