from __future__ import annotations

import gzip
import http.client
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson
import pytest

from redline.clock import ClockOffset, realtime_offset
from redline.observe.otlp import JSON, PROTOBUF, OtlpReceiver, Refused, read_spans, unpacked
from redline.observe.span import Span

TRACE, OWN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


@pytest.fixture
def taken() -> Iterator[tuple[OtlpReceiver, list[Span]]]:
    spans: list[Span] = []
    with OtlpReceiver(spans.extend) as receiver:
        yield receiver, spans


def request(began: int = 1_000, **more: object) -> bytes:
    span = {"traceId": TRACE, "spanId": OWN, "parentSpanId": PARENT, "name": "llm_request",
            "startTimeUnixNano": str(began), "endTimeUnixNano": str(began + 500),
            "attributes": [{"key": "gen_ai.latency.time_in_queue", "value": {"doubleValue": 0.25}},
                           {"key": "n", "value": {"intValue": "7"}},
                           {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": True}]}}}],
            **more}  # fmt: skip
    about = {"attributes": [{"key": "service.name", "value": {"stringValue": "vllm"}}]}
    return orjson.dumps({"resourceSpans": [{"resource": about, "scopeSpans": [{"spans": [span]}]}]})


def post(url: str, body: bytes, kind: str, **headers: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": kind, **headers})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def test_json_and_gzip_arrive_on_our_clock(taken: tuple[OtlpReceiver, list[Span]]) -> None:
    receiver, spans = taken
    began = time.monotonic_ns()
    body = request(began + realtime_offset().offset_ns)
    assert post(receiver.url, body, JSON) == (200, b"{}")
    assert post(receiver.url, gzip.compress(body), JSON, **{"Content-Encoding": "gzip"})[0] == 200
    assert receiver.received == 2
    for span in spans:
        assert (span.trace_id, span.span_id, span.parent_id, span.service) == (TRACE, OWN, PARENT, "vllm")
        assert span.attributes == {"gen_ai.latency.time_in_queue": 0.25, "n": 7, "list": [True]}
        assert span.began_ns == pytest.approx(began, abs=50_000_000)
        assert span.ended_ns - span.began_ns == 500


def test_protobuf_says_the_same_as_json() -> None:
    wire = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="redline[spans]")
    message = wire.ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    about = resource.resource.attributes.add()
    about.key, about.value.string_value = "service.name", "vllm"
    span = resource.scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.parent_span_id = map(bytes.fromhex, (TRACE, OWN, PARENT))
    span.name, span.start_time_unix_nano, span.end_time_unix_nano = "llm_request", 1_000, 1_500
    queue, number, items = span.attributes.add(), span.attributes.add(), span.attributes.add()
    queue.key, queue.value.double_value = "gen_ai.latency.time_in_queue", 0.25
    number.key, number.value.int_value = "n", 7
    items.key = "list"
    items.value.array_value.values.add().bool_value = True
    offset = ClockOffset(0, 0)
    assert read_spans(message.SerializeToString(), PROTOBUF, offset) == read_spans(request(), JSON, offset)


@pytest.mark.parametrize(
    ("body", "kind", "headers", "status"),
    [
        (b"{", JSON, {}, 400),
        (b'{"resourceSpans": 5}', JSON, {}, 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "no ids"}]}]}]}', JSON, {}, 400),
        (b"\xff\xff\xff", PROTOBUF, {}, 400),
        (b"<spans/>", "text/xml", {}, 415),
        (b"not gzip, and long enough", JSON, {"Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-6], JSON, {"Content-Encoding": "gzip"}, 400),
        (b"{}", JSON, {"Content-Encoding": "br"}, 415),
        (b"{}", JSON, {}, 200),
    ],
)
def test_bad_input_is_told_and_the_receiver_goes_on(
    taken: tuple[OtlpReceiver, list[Span]], body: bytes, kind: str, headers: dict[str, str], status: int
) -> None:
    receiver, spans = taken
    assert post(receiver.url, body, kind, **headers)[0] == status
    assert spans == []
    assert post(receiver.url, request(), JSON)[0] == 200


def test_other_paths_and_methods(taken: tuple[OtlpReceiver, list[Span]]) -> None:
    receiver, _ = taken
    assert post(receiver.url.replace("traces", "logs"), b"{}", JSON)[0] == 404
    parts = urlsplit(receiver.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().status == 405
    connection.close()


def test_a_bomb_does_not_go_off() -> None:
    with pytest.raises(Refused) as caught:
        unpacked(gzip.compress(b"\0" * (80 << 20), 9), "gzip")
    assert caught.value.status == 413


def test_a_store_that_fails_costs_the_spans_and_not_the_run() -> None:
    def broken(spans: list[Span]) -> None:
        raise OSError("disk full")

    with OtlpReceiver(broken) as receiver:
        assert post(receiver.url, request(), JSON)[0] == 200
    assert receiver.notes == ["spans could not be kept: OSError: disk full"]
    receiver.close()
