"""Receives OpenTelemetry spans by OTLP over HTTP on the loopback device: JSON always, protobuf with `redline[spans]`.

    POST /v1/traces    application/json or application/x-protobuf, gzip or plain

Spans come with wall time; the distance to the monotonic clock is taken when they arrive, so that a clock that was
stepped in the meantime shifts them by that step and no more.
"""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import orjson

from redline.clock import ClockOffset, realtime_offset
from redline.observe.span import Span

PATH = "/v1/traces"
MOST_BYTES = 64 << 20
JSON, PROTOBUF = "application/json", "application/x-protobuf"
NO_PROTOBUF = "spans came as protobuf, which needs opentelemetry-proto: pip install 'redline[spans]'"

Keep = Callable[[list[Span]], None]


class Refused(ValueError):
    """What the sender did wrong; `status` is the HTTP status."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class OtlpReceiver:
    """Use as a context manager: listens from its making to its end. `keep` gets spans, in a thread of ours."""

    def __init__(self, keep: Keep, port: int = 0) -> None:
        self.keep = keep
        self.received = 0
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="redline-otlp", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where spans are to be sent."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def __enter__(self) -> OtlpReceiver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Safe to call twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def take(self, spans: list[Span]) -> None:
        with self._lock:
            self.received += len(spans)
        try:
            self.keep(spans)
        except Exception as error:  # the run is worth more than its spans
            self.note(f"spans could not be kept: {type(error).__name__}: {error}")

    def note(self, text: str) -> None:
        with self._lock:
            if text not in self.notes and len(self.notes) < 20:
                self.notes.append(text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], receiver: OtlpReceiver) -> None:
        self.receiver = receiver
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that hangs up is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        try:
            body = self._body()
            if self.path.rstrip("/") != PATH:
                raise Refused(404, f"only {PATH} is here")
            self.server.receiver.take(read_spans(body, kind))  # type: ignore[attr-defined]
        except Refused as refused:
            if refused.status == 415:
                self.server.receiver.note(str(refused))  # type: ignore[attr-defined]
            self._reply(refused.status, JSON, orjson.dumps({"message": str(refused)}))
            return
        self._reply(200, kind, b"{}" if kind == JSON else b"")  # an empty ExportTraceServiceResponse

    def do_GET(self) -> None:
        self._reply(405, JSON, orjson.dumps({"message": f"POST spans to {PATH}"}))

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            raise Refused(411, "Content-Length is missing")
        if int(length) > MOST_BYTES:
            self.close_connection = True
            raise Refused(413, f"more than {MOST_BYTES} bytes")
        body = self.rfile.read(int(length))
        return unpacked(body, self.headers.get("Content-Encoding", "identity").lower())

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind or JSON)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: stderr is the user's."""

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def unpacked(body: bytes, encoding: str) -> bytes:
    """Refused for what is no gzip, and for what grows beyond the limit."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise Refused(415, f"content encoding {encoding!r} is not understood; gzip is")
    try:
        reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
        plain = reader.decompress(body, MOST_BYTES + 1)
    except zlib.error as error:
        raise Refused(400, f"the body is no gzip: {error}") from error
    if len(plain) > MOST_BYTES:
        raise Refused(413, f"more than {MOST_BYTES} bytes")
    if not reader.eof:
        raise Refused(400, "the body is a gzip that was cut off")
    return plain


def read_spans(body: bytes, kind: str, offset: ClockOffset | None = None) -> list[Span]:
    """Spans of an ExportTraceServiceRequest. Refused when it is none."""
    offset = offset or realtime_offset()
    try:
        if kind == JSON:
            return _spans(orjson.loads(body), offset)
        if kind == PROTOBUF:
            return _spans(_protobuf(body), offset)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(400, f"no OTLP trace request: {type(error).__name__}: {error}") from error
    raise Refused(415, f"content type {kind or 'of nothing'!r} is not understood; {JSON} and {PROTOBUF} are")


def _protobuf(body: bytes) -> dict[str, Any]:
    try:
        from google.protobuf.json_format import MessageToDict
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError:
        raise Refused(415, NO_PROTOBUF) from None
    try:
        message = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise Refused(400, f"no OTLP trace request: {error}") from error
    found: dict[str, Any] = MessageToDict(message)
    # protobuf's JSON writes ids in base64, OTLP's own in hex
    for resource in found.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = _hex(span[name])
    return found


def _hex(text: str) -> str:
    from base64 import b64decode

    return b64decode(text).hex()


def _spans(request: Mapping[str, Any], offset: ClockOffset) -> list[Span]:
    found = []
    for resource in request.get("resourceSpans", ()):
        about = _attributes(resource.get("resource", {}).get("attributes", ()))
        for scope in resource.get("scopeSpans", ()):
            found += [_span(one, str(about.get("service.name", "")), offset) for one in scope.get("spans", ())]
    return found


def _span(one: Mapping[str, Any], service: str, offset: ClockOffset) -> Span:
    began, ended = (int(one.get(name, 0)) for name in ("startTimeUnixNano", "endTimeUnixNano"))
    return Span(
        trace_id=str(one["traceId"]).lower(),
        span_id=str(one["spanId"]).lower(),
        parent_id=str(one.get("parentSpanId") or "").lower(),
        name=str(one.get("name", "")),
        service=service,
        began_ns=offset.to_monotonic(began),
        ended_ns=offset.to_monotonic(max(ended, began)),
        attributes=_attributes(one.get("attributes", ())),
    )


def _attributes(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {str(pair["key"]): _value(pair.get("value") or {}) for pair in pairs}


def _value(value: Mapping[str, Any]) -> Any:
    """The one field of an AnyValue."""
    for name, given in value.items():
        if name == "intValue":
            return int(given)
        if name == "arrayValue":
            return [_value(item) for item in given.get("values", ())]
        if name == "kvlistValue":
            return _attributes(given.get("values", ()))
        return given
    return None
