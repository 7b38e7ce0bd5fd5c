"""One request: what happened to it in its order, from our stamps and the engine's spans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.analyse.explain.shares import PARTS
from redline.errors import UsageError
from redline.report.explain.read import PointExplained, chosen, explain_point
from redline.report.numbers import number
from redline.report.section import Section
from redline.store.read import Reader, default_path
from redline.store.rows import SpanRow

WIDTH = 32
_HEADS = ("ms", "lasted ms", "what", "by", "")


@dataclass(frozen=True)
class Step:
    """Monotonic ns. `by` is client, engine or kernel."""

    began_ns: int
    ended_ns: int
    what: str
    by: str


@dataclass(frozen=True)
class RequestTimeline:
    """`due_ns` is when the request was to be sent; steps are in the order of time."""

    index: int
    label: str
    due_ns: int
    total_ms: float
    shares_ms: dict[str, float]
    steps: tuple[Step, ...]
    spans: tuple[SpanRow, ...]
    slow: bool


def explain_request(
    run: str = "last", request: int = 0, *, point: str = "", engine: str = "", db: Path | None = None
) -> RequestTimeline:
    """`redline explain RUN --request ID` from Python. UsageError when there is no such request, or several."""
    with Reader.open(db or default_path()) as reader:
        row = reader.run(run)
        pairs = chosen(row, point, engine)
        fitting = [(trial, one) for trial, one in pairs if request in reader.requests(one.id).index.tolist()]
        if not fitting:
            raise UsageError(
                f"run {row.id} has no request {request} there", fix="redline explain --json lists the slow"
            )
        if len(fitting) > 1:
            where = ", ".join(f"{trial.engine} at {one.label}" for trial, one in fitting[:4])
            raise UsageError(
                f"several load points have a request {request}: {where}", fix="name one: --point, --engine"
            )
        trial, one = fitting[0]
        found = explain_point(reader, row, trial, one)
        if isinstance(found, str):
            raise UsageError(f"request {request} cannot be explained", why=found)
        at = np.flatnonzero(found.requests.index == request)
        if not len(at):
            known = f"measured are {found.requests.index.min()} to {found.requests.index.max()}"
            raise UsageError(f"request {request} was a warm-up, a canary, or never ended", fix=known)
        prefix = str(one.outcome.get("trace_prefix") or "")
        spans = reader.spans(trial.id, f"{prefix}{request:016x}") if prefix else []
        return _timeline(found, int(at[0]), spans)


def _timeline(found: PointExplained, row: int, spans: list[SpanRow]) -> RequestTimeline:
    requests, told = found.requests, found.explanation
    due, sent = int(requests.intended_ns[row]), int(requests.sent_ns[row])
    chunks = requests.chunk_ns[requests.chunk_start[row] : requests.chunk_start[row + 1]]
    steps = [Step(due, sent, "waiting to be sent", "client")] if sent > due else []
    if requests.connected_ns[row]:
        steps.append(Step(int(requests.connected_ns[row]), int(requests.connected_ns[row]), "connected", "client"))
    if len(chunks):
        steps.append(Step(sent, int(chunks[0]), "until the first token", "client"))
        steps.append(Step(int(chunks[0]), int(chunks[-1]), f"stream of {len(chunks)} chunks", "client"))
    steps += [Step(one.began_ns, one.ended_ns, one.name, _service(one)) for one in spans]
    end = int(max(requests.finished_ns[row], requests.latest_ns[row]))
    for stall in told.stalls:
        if stall.began_ns < end and stall.ended_ns > sent:
            kind = "held back" if stall.held else "all stood still" if stall.joint else "some stood still"
            steps.append(Step(stall.began_ns, stall.ended_ns, kind, "client"))
    steps.sort(key=lambda one: (one.began_ns, -one.ended_ns))
    shares = {name: float(told.shares.parts[name][row]) / 1e6 for name in PARTS}
    total = float(told.shares.total_ns[row]) / 1e6
    index, slow = int(requests.index[row]), bool(told.slow[row])
    return RequestTimeline(index, found.label, due, total, shares, tuple(steps), tuple(spans), slow)


def _service(span: SpanRow) -> str:
    return "engine" if not span.service or span.service.startswith("unknown_service") else span.service


def request_sections(found: RequestTimeline) -> tuple[Section, Section]:
    parts = tuple(
        (name, number(ms), f"{ms / found.total_ms:.0%}" if found.total_ms else "–")
        for name, ms in found.shares_ms.items()
    )
    kind = "slow for its length" if found.slow else "not slow for its length"
    title = f"Request {found.index} of {found.label}: {number(found.total_ms)} ms, {kind}"
    shares = Section("request-shares", title, ("part", "ms", "share"), parts)
    rows = tuple(
        (
            f"{(one.began_ns - found.due_ns) / 1e6:.1f}", number((one.ended_ns - one.began_ns) / 1e6), one.what, one.by,
            _bar(one, found),
        )
        for one in found.steps
    )  # fmt: skip
    notes = ("ms from when it was due",) if found.spans else ("no spans of the engine: measure with --spans",)
    return shares, Section("request-steps", "In its order", _HEADS, rows, notes)


def _bar(one: Step, found: RequestTimeline) -> str:
    span = max(found.total_ms * 1e6, 1.0)
    begin = min(max((one.began_ns - found.due_ns) / span, 0.0), 1.0)
    end = min(max((one.ended_ns - found.due_ns) / span, begin), 1.0)
    left = min(int(begin * WIDTH), WIDTH - 1)
    return " " * left + "█" * max(1, round((end - begin) * WIDTH))


def request_dict(found: RequestTimeline) -> dict[str, Any]:
    return {
        "request": found.index,
        "point": found.label,
        "total_ms": found.total_ms,
        "slow": found.slow,
        "shares_ms": found.shares_ms,
        "steps": [
            {"at_ms": (one.began_ns - found.due_ns) / 1e6, "lasted_ms": (one.ended_ns - one.began_ns) / 1e6,
             "what": one.what, "by": one.by}
            for one in found.steps
        ],
        "spans": [
            {"name": one.name, "service": one.service, "span_id": one.span_id, "parent_id": one.parent_id,
             "at_ms": (one.began_ns - found.due_ns) / 1e6, "lasted_ms": (one.ended_ns - one.began_ns) / 1e6,
             "attributes": one.attributes}
            for one in found.spans
        ],
    }  # fmt: skip
