"""OpenTelemetry spans of finished requests, sent as OTLP/JSON over HTTP by a thread of its own.

A request is one span `llm_request`, with the attributes that vLLM gives it, and its children `queue`, `prefill` and
`decode`. The event loop appends a tuple; when nobody takes the spans, the newest are dropped and counted.
"""

from __future__ import annotations

import http.client
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

EVERY_S = 0.25
MOST_WAITING = 20_000
TIMEOUT_S = 5.0
log = logging.getLogger(__name__)


class Ended(NamedTuple):
    """A request that is over; monotonic ns, 0 for what it never reached. `trace` is the traceparent it came with."""

    trace: str
    id: str
    reason: str
    arrived_ns: int
    scheduled_ns: int
    first_token_ns: int
    ended_ns: int
    prompt_tokens: int
    output_tokens: int
    preempted: int


class SpanSender:
    """`url` takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces."""

    def __init__(self, url: str, model: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"not an http:// address: {url!r}")
        self._host, self._port, self._path = parts.hostname, parts.port or 4318, parts.path or "/v1/traces"
        self._model = model
        self._waiting: deque[Ended] = deque()
        self._stop = threading.Event()
        self.dropped = 0
        self._warned = False
        self._thread = threading.Thread(target=self._loop, name="redline-spans", daemon=True)
        self._thread.start()

    def add(self, ended: Ended) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
        else:
            self._waiting.append(ended)

    def close(self) -> None:
        """Sends what waits, or gives up on it after a few seconds."""
        self._stop.set()
        self._thread.join(TIMEOUT_S)

    def _loop(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._send()
        self._send()

    def _send(self) -> None:
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:
            return
        try:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
            try:
                connection.request("POST", self._path, encode(batch, self._model), {"Content-Type": "application/json"})
                reply = connection.getresponse()
                reply.read()
                if reply.status >= 300:
                    raise OSError(f"HTTP {reply.status}")
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            self.dropped += len(batch)
            if not self._warned:
                self._warned = True
                log.warning("spans cannot be sent to %s:%d: %s", self._host, self._port, error)


def encode(batch: Sequence[Ended], model: str) -> bytes:
    """An ExportTraceServiceRequest as JSON."""
    offset = time.time_ns() - time.monotonic_ns()
    spans = [span for one in batch for span in _spans(one, offset, model)]
    resource = {"attributes": _pairs({"service.name": "redline-engine"})}
    return orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]})


def _spans(one: Ended, offset: int, model: str) -> list[dict[str, Any]]:
    words = one.trace.split("-")
    known = len(words) >= 4 and len(words[1]) == 32 and len(words[2]) == 16
    trace, parent = (words[1], words[2]) if known else (secrets.token_hex(16), "")
    queued = one.scheduled_ns or one.ended_ns
    first = one.first_token_ns or one.ended_ns
    told: dict[str, Any] = {
        "gen_ai.request.id": one.id,
        "gen_ai.response.model": model,
        "gen_ai.usage.prompt_tokens": one.prompt_tokens,
        "gen_ai.usage.completion_tokens": one.output_tokens,
        "gen_ai.latency.time_in_queue": (queued - one.arrived_ns) / 1e9,
        "gen_ai.latency.e2e": (one.ended_ns - one.arrived_ns) / 1e9,
        "redline.finish_reason": one.reason,
        "redline.preempted": one.preempted,
    }
    phases = [("queue", one.arrived_ns, queued)]
    if one.scheduled_ns:
        told["gen_ai.latency.time_in_model_prefill"] = (first - queued) / 1e9
        phases.append(("prefill", queued, first))
    if one.first_token_ns:
        told["gen_ai.latency.time_to_first_token"] = (first - one.arrived_ns) / 1e9
        told["gen_ai.latency.time_in_model_decode"] = (one.ended_ns - first) / 1e9
        phases.append(("decode", first, one.ended_ns))
    root = secrets.token_hex(8)
    whole = _span(trace, root, parent, "llm_request", one.arrived_ns, one.ended_ns, offset)
    children = [_span(trace, secrets.token_hex(8), root, name, begin, end, offset) for name, begin, end in phases]
    return [whole | {"kind": 2, "attributes": _pairs(told)}, *children]


def _span(trace: str, own: str, parent: str, name: str, began_ns: int, ended_ns: int, offset: int) -> dict[str, Any]:
    return {
        "traceId": trace, "spanId": own, **({"parentSpanId": parent} if parent else {}), "name": name, "kind": 1,
        "startTimeUnixNano": str(began_ns + offset), "endTimeUnixNano": str(max(ended_ns, began_ns) + offset),
    }  # fmt: skip


def _pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any(value)} for key, value in values.items()]


def _any(value: Any) -> dict[str, Any]:
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}
