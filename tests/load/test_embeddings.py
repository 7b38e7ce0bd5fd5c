"""Embeddings: one vector per input, checked; one latency; no token that could be late."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from redline.load.paced.server import PacedServer
from redline.load.reading import Asked, Reader
from redline.load.record import RequestRecord, Status, TokenSource
from tests.load.servers import closed, fast, push, workload
from tests.load.streams import raw

GOOD = [0.5, -0.25, 0.125]


def read(data: Any, inputs: int = 1, reader: Reader | None = None, **body: Any) -> RequestRecord:
    entries = [{"index": i, "embedding": vector} for i, vector in enumerate(data)] if isinstance(data, list) else data
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    text = json.dumps({"object": "list", "data": entries, "usage": usage, **body}).encode()
    stream = raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text])
    asked = Asked(7, 0, stream=False, api="embeddings", inputs=inputs)
    return (reader or Reader()).read(stream, asked)


def packed(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@pytest.mark.parametrize("vector", [GOOD, packed(*GOOD)])
def test_a_vector_in_either_form(vector: Any) -> None:
    record = read([vector])
    assert (record.status, record.error, record.finish_reason) == (Status.OK, "", "embedding")
    assert (record.prompt_tokens, record.output_tokens, record.chunk_ns) == (7, 0, [])
    assert record.token_source is TokenSource.USAGE
    assert record.finished_ns > record.sent_ns


def test_usage_that_is_no_object_counts_for_nothing() -> None:
    record = read([GOOD], usage="none")
    assert (record.status, record.prompt_tokens) == (Status.OK, 0)


@pytest.mark.parametrize(
    ("data", "inputs", "said"),
    [
        ([GOOD], 2, "1 vectors came back for 2 inputs"),
        ([], 1, "0 vectors"),
        ([GOOD, GOOD[:2]], 2, "vector 1 holds 2 numbers where others hold 3"),
        ([[]], 1, "no list of numbers"),
        (["?"], 1, "no list of numbers"),
        ([["a"]], 1, "no list of numbers"),
        ([None], 1, "no list of numbers"),
        ([[0.0, 0.0]], 1, "zero in every place"),
        ([packed(1.0, float("nan"))], 1, "NaN"),
        ("none", 1, "has no data"),
    ],
)
def test_what_is_no_vector_is_a_failure(data: Any, inputs: int, said: str) -> None:
    record = read(data, inputs)
    assert record.status is Status.MALFORMED
    assert said in record.error


def test_every_answer_of_a_point_has_the_same_dimension() -> None:
    reader = Reader()
    assert read([GOOD], reader=reader).status is Status.OK
    assert "holds 2 numbers where others hold 3" in read([GOOD[:2]], reader=reader).error


@pytest.mark.parametrize("form", ["float", "base64"])
def test_against_the_paced_server(form: str) -> None:
    work = workload(api="embeddings", embedding_batch=3, embedding_format=form)
    with PacedServer(fast(ttft_ms=20)) as server:
        result = push(server, closed(4), work=work, requests=24)
        truth = {one.id: one for one in server.truth()}
    assert result.count(Status.OK) == 24
    for record in result.measured:
        assert (record.prompt_tokens, record.asked_prompt_tokens, record.asked_output_tokens) == (96, 96, 0)
        assert (record.finished_ns - record.sent_ns) / 1e6 >= 19
    assert {one.prompt_tokens for one in truth.values()} >= {96}


def test_every_fault_is_counted_and_named() -> None:
    expected = {
        "": Status.OK, "http-500": Status.HTTP, "reset": Status.RESET, "close": Status.RESET,
        "error-event": Status.MALFORMED, "malformed": Status.MALFORMED, "empty": Status.MALFORMED,
    }  # fmt: skip
    with PacedServer(fast(faults=dict.fromkeys(filter(None, expected), 0.1))) as server:
        result = push(server, closed(4), work=workload(api="embeddings"), requests=60, warmup_requests=1)
        planted = {int(one.id.rpartition("-")[2]): one.fault for one in server.truth() if one.id}
    assert {planted[record.index] for record in result.measured} == set(expected)
    assert {record.index: record.status for record in result.measured} == {
        record.index: expected[planted[record.index]] for record in result.measured
    }


def test_no_tokenizer_learns_lengths_from_usage() -> None:
    with PacedServer(fast(tokenizer=False)) as server:
        result = push(server, closed(2), work=workload(api="embeddings"), requests=8)
    assert {record.prompt_tokens for record in result.measured} == {32}
