"""Requests of a load point, some at a time; and one request from when it was due to its last byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from redline.analyse.stalls import find_stalls, stall_limit_ns
from redline.errors import UsageError
from redline.load.record import RequestRecord
from redline.pages.desk import Desk, json_answer
from redline.pages.figures import thin
from redline.pages.point import find, known
from redline.pages.spans import events_of, spans_of
from redline.store.browse import KINDS, ORDERS
from redline.units import NS_PER_MS

PER_PAGE = 50
ORDER_NAMES = {
    "slowest": "slowest first", "fastest": "fastest first", "ttft": "longest to the first token",
    "gap": "widest between chunks", "longest": "longest answers", "first": "in the order they were due",
}  # fmt: skip
KIND_NAMES = {
    "measured": "measured", "failed": "failed", "cut": "cut off", "warmup": "warm-up", "all": "all",
}  # fmt: skip
MOST_STALLS = 50
MOST_CHUNKS = 12_000


@dataclass(frozen=True)
class Event:
    """`at_ms` from when the request was due; `step_ms` since the event before."""

    name: str
    at_ms: float
    step_ms: float
    said: str


@dataclass(frozen=True)
class Phase:
    """A stretch of a request's life; `left` and `width` in percent of all of it."""

    name: str
    kind: str
    ms: float
    left: float
    width: float


def requests_page(desk: Desk, request: Request) -> Response:
    point_id, query = request.path_params["point"], request.query_params
    order, kind = query.get("order", "slowest"), query.get("kind", "measured")
    order, kind = order if order in ORDERS else "slowest", kind if kind in KINDS else "measured"
    with desk.open() as reader:
        run = known(reader.run_of_point(point_id), point_id)
        rows = reader.request_lines(point_id, order, kind, query.get("after", ""), PER_PAGE + 1)
        trial, point = find(run, point_id)
        counts = desk.library.request_counts(reader, point)
    more = rows[PER_PAGE - 1].key(order) if len(rows) > PER_PAGE else ""

    def link(**changes: str) -> str:
        return f"/point/{point_id}/requests?" + urlencode({"order": order, "kind": kind, **changes})

    slowest = max((row.e2e for row in rows), default=0) or 1
    return desk.page(
        request, "requests", run=run, trial=trial, point=point, rows=rows[:PER_PAGE], order=order, kind=kind,
        orders=ORDER_NAMES, kinds=KIND_NAMES, counts=counts, more=more, link=link, first=not query.get("after"),
        slowest=slowest,
    )  # fmt: skip


def request_page(desk: Desk, request: Request) -> Response:
    request_id = request.path_params["request"]
    with desk.open() as reader:
        found = reader.request(request_id)
        if found is None:
            raise _gone(request_id)
        run = known(reader.run_of_point(found.point_id), found.point_id)
        trial, point = find(run, found.point_id)
        spans, meanwhile = spans_of(reader, found, point.outcome), events_of(reader, found)
    record = found.record
    chunks = np.asarray(record.chunk_ns, np.int64)
    events = life(record)
    return desk.page(
        request, "request", id=request_id, found=found, run=run, trial=trial, point=point, record=record, events=events,
        phases=phases(record), stalls=find_stalls(chunks)[:MOST_STALLS],
        limit_ms=stall_limit_ns(chunks) / NS_PER_MS,
        sizes=sorted(zip(*np.unique(record.chunk_tokens, return_counts=True), strict=True)), spans=spans,
        meanwhile=meanwhile,
        facts=facts(record),
    )  # fmt: skip


def _gone(request_id: int) -> UsageError:
    return UsageError(
        f"there is no request {request_id}", why="its run may have been deleted", fix="start at the list of runs"
    )


def life(record: RequestRecord) -> list[Event]:
    """What happened, in order; what never happened is left out."""
    marks = [
        ("due", record.intended_ns, "when the load plan wanted it sent"),
        ("connected", record.connected_ns, "a new connection was there"),
        ("sent", record.sent_ns, "its last byte was handed to the kernel"),
        ("first byte", record.first_byte_ns, "of the response's head"),
        ("first token", record.chunk_ns[0] if record.chunk_ns else 0, f"stamped by {_stamper(record.stamp)}"),
        ("first answer token", _answer(record), "the reasoning is over"),
        ("last token", record.chunk_ns[-1] if len(record.chunk_ns) > 1 else 0, f"chunk {len(record.chunk_ns):,}"),
        ("finished", record.finished_ns, record.finish_reason or str(record.status)),
    ]
    happened = sorted(((name, at, said) for name, at, said in marks if at), key=lambda mark: mark[1])
    before = [record.intended_ns, *(at for _, at, _ in happened)]
    return [
        Event(name, (at - record.intended_ns) / NS_PER_MS, (at - earlier) / NS_PER_MS, said)
        for (name, at, said), earlier in zip(happened, before, strict=False)
    ]


def _answer(record: RequestRecord) -> int:
    first = record.chunk_ns[0] if record.chunk_ns else 0
    return record.answer_first_ns if record.answer_first_ns > first > 0 else 0


def _stamper(stamp: str) -> str:
    return {"packet": "its own packet", "kernel": "the kernel"}.get(stamp, stamp or "nobody")


def phases(record: RequestRecord) -> list[Phase]:
    """Waiting to be sent, waiting for the first token, the tokens, what came after them."""
    first = record.chunk_ns[0] if record.chunk_ns else 0
    last = record.chunk_ns[-1] if record.chunk_ns else 0
    cuts = [
        ("held back in the client", "client", record.sent_ns),
        ("until the first byte", "server", record.first_byte_ns),
        ("until the first token", "prefill", first),
        ("tokens arrive", "decode", last),
        ("until the last byte", "tail", record.finished_ns),
    ]
    end = max([record.intended_ns + 1, *(at for *_, at in cuts)])
    whole, at, found = end - record.intended_ns, record.intended_ns, []
    for name, kind, until in cuts:
        if until > at:
            left, width = (100 * (value) / whole for value in (at - record.intended_ns, until - at))
            found.append(Phase(name, kind, (until - at) / NS_PER_MS, round(left, 3), round(width, 3)))
            at = until
    return found


def facts(record: RequestRecord) -> list[tuple[str, str]]:
    """What else is known of it."""
    rows: list[tuple[str, Any]] = [
        ("status", str(record.status) + (f", HTTP {record.http_status}" if record.http_status else "")),
        ("finish reason", record.finish_reason),
        ("prompt tokens", f"{record.prompt_tokens:,}" + _of(record.asked_prompt_tokens)),
        ("from the prefix cache", f"{record.cached_tokens:,} tokens" if record.cached_tokens else ""),
        ("output tokens", f"{record.output_tokens:,}" + _of(record.asked_output_tokens)),
        ("tokens counted by", str(record.token_source)),
        ("chunks", f"{len(record.chunk_ns):,}"),
        ("arrivals stamped by", _stamper(record.stamp)),
        ("chunks that share a stamp", f"{record.shared_stamps:,}" if record.shared_stamps else ""),
        ("class", record.request_class),
        ("session", f"{record.session}, turn {record.turn}" if record.session >= 0 else ""),
        ("canary", f"number {record.canary}" if record.canary >= 0 else ""),
        ("warm-up", "yes: not measured" if record.warmup else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _of(asked: int) -> str:
    return f" of {asked:,} asked for" if asked else ""


def chunk_data(desk: Desk, request: Request) -> Response:
    """Two charts: the gap before each chunk with stalls marked, and tokens over time."""
    request_id = request.path_params["request"]
    with desk.open() as reader:
        found = reader.request(request_id)
    if found is None:
        raise _gone(request_id)
    return json_answer({"figures": chunk_figures(found.record, found)})


def chunk_figures(record: RequestRecord, found: Any) -> list[dict[str, Any]]:
    chunks = np.asarray(record.chunk_ns, np.int64)
    if not len(chunks):
        return []
    at = (chunks - record.intended_ns) / NS_PER_MS
    gaps = np.diff(chunks) / NS_PER_MS
    stalls = find_stalls(chunks)[:MOST_STALLS]
    begin = [(stall.start_ns - record.intended_ns) / NS_PER_MS for stall in stalls]
    bands = [
        {"from": a, "to": a + stall.ns / NS_PER_MS, "name": "stall", "bad": True}
        for a, stall in zip(begin, stalls, strict=True)
    ]
    marks = [{"x": event.at_ms, "name": event.name} for event in life(record) if event.name != "last token"]
    x = {"title": "ms since due"}
    figures: list[dict[str, Any]] = []
    if len(gaps):
        shown = thin(at[1:], gaps, MOST_CHUNKS)
        figures.append(
            {"title": "Gap before each chunk", "unit": "ms", "x": x, "zero": True, "bands": bands, "group": "request",
             "height": 240, "from": 0,
             "series": [{"name": "gap", "colour": 0, "x": shown[0], "y": shown[1], "stems": len(gaps) <= 400,
                         "dots": len(gaps) <= 400}]}
        )  # fmt: skip
    total = thin(at, np.cumsum(record.chunk_tokens).astype(float), MOST_CHUNKS)
    figures.append(
        {"title": "Tokens so far", "unit": "tokens", "x": x, "zero": True, "bands": bands, "marks": marks, "from": 0,
         "group": "request", "height": 260,
         "series": [{"name": "tokens", "colour": 2, "x": total[0], "y": total[1], "step": True}]}
    )  # fmt: skip
    return figures
