"""Answers of the Responses API: typed events, usage in the last one, no [DONE]."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.frames import End, RawStream
from redline.load.paced.pace import Asked as PacedAsked
from redline.load.paced.pace import Pace
from redline.load.paced.script import script
from redline.load.paced.server import PacedServer
from redline.load.reading import Asked, Reader
from redline.load.record import RequestRecord, Status, TokenSource
from tests.load.servers import closed, fast, push, workload
from tests.load.streams import MS, OK_HEAD, SENT, chunked, cut, raw

ASKED = Asked(prompt_tokens=12, output_tokens=3, keep_text=True, api="responses")


def event(kind: str, name: bool = True, **fields: Any) -> bytes:
    head = f"event: {kind}\n" if name else ""
    return f"{head}data: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(text: str, kind: str = "output_text") -> bytes:
    return event(f"response.{kind}.delta", item_id="m", delta=text)


def last(kind: str = "completed", tokens: int = 3, **fields: Any) -> bytes:
    usage = {
        "input_tokens": 12,
        "output_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return event(f"response.{kind}", response={"status": kind, "usage": usage, **fields})


def read(*events: bytes, end: End = End.COMPLETE, whole: bool = True) -> RequestRecord:
    pieces = [OK_HEAD, *chunked(*events, last=whole)]
    return Reader().read(raw(pieces, end), ASKED)


CREATED = event("response.created", response={"status": "in_progress"})
THREE = [delta(" a"), delta(" b"), delta(" c")]


def test_a_whole_answer() -> None:
    record = read(CREATED, *THREE, last(incomplete_details={"reason": "max_output_tokens"}))
    assert (record.status, record.error) == (Status.OK, "")
    assert [at - SENT for at in record.chunk_ns] == [30 * MS, 40 * MS, 50 * MS]
    assert (record.text, record.output_tokens, record.token_source) == (" a b c", 3, TokenSource.USAGE)
    assert (record.prompt_tokens, record.cached_tokens, record.finish_reason) == (12, 8, "length")


def test_it_ends_with_its_last_event_and_not_with_the_connection() -> None:
    pieces = [OK_HEAD, *chunked(*THREE, last(), last=False)]
    record = Reader().read(raw(pieces, End.CLOSED), ASKED)
    assert record.status is Status.OK
    assert record.finished_ns == SENT + 50 * MS


@pytest.mark.parametrize("kind", ["reasoning_text", "reasoning_summary_text"])
def test_reasoning_is_told_from_the_answer(kind: str) -> None:
    record = read(CREATED, delta("hm", kind), delta(" yes"), last(tokens=2))
    assert (record.chunk_tokens, record.output_tokens) == ([1, 1], 2)
    assert record.answer_first_ns == record.chunk_ns[1] > record.chunk_ns[0]


def test_calls_and_refusals_are_content() -> None:
    record = read(delta('{"a":', "function_call_arguments"), delta(" no", "refusal"), last(tokens=2))
    assert record.text == '{"a": no'
    assert record.finish_reason == "stop"


def test_tokens_without_an_event_are_spread_over_the_chunks() -> None:
    record = read(delta("The"), delta(" `readline`"), last(tokens=5))
    assert sum(record.chunk_tokens) == record.output_tokens == 5
    assert record.chunk_tokens[1] > record.chunk_tokens[0]


@pytest.mark.parametrize(
    ("events", "status", "said"),
    [
        ([*THREE], Status.RESET, "without response.completed"),
        ([delta(" a"), event("error", message="boom")], Status.MALFORMED, "error event: boom"),
        ([delta(" a"), b'data: {"error": {"message": "boom"}}\n\n'], Status.MALFORMED, "boom"),
        ([delta(" a"), last("failed", error={"code": "x", "message": "no room"})], Status.MALFORMED, "no room"),
        ([b"event: response.output_text.delta\ndata: {cut\n\n"], Status.MALFORMED, "no JSON"),
        ([b'data: {"choices": []}\n\n'], Status.MALFORMED, "no type"),
        ([last(tokens=0)], Status.EMPTY, "without one token"),
    ],
)
def test_what_goes_wrong_is_named(events: list[bytes], status: Status, said: str) -> None:
    record = read(*events)
    assert record.status is status
    assert said in record.error


def test_an_answer_in_one_piece() -> None:
    body = {
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "yes"}]},
        ],
        "usage": {"input_tokens": 4, "output_tokens": 2},
    }
    data = json.dumps(body).encode()
    stream = raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data])
    record = Reader().read(stream, Asked(4, 2, stream=False, keep_text=True, api="responses"))
    assert (record.status, record.text, record.output_tokens, record.prompt_tokens) == (Status.OK, "hmyes", 2, 4)


@pytest.mark.parametrize("content", [3, {"text": "a"}, "a"])
def test_an_item_whose_content_is_no_list_says_nothing(content: object) -> None:
    data = json.dumps({"object": "response", "output": [{"type": "message", "content": content}]}).encode()
    stream = raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data])
    assert Reader().read(stream, Asked(4, 2, stream=False, api="responses")).status is Status.EMPTY


def paced_bytes(pace: Pace, fault: str = "") -> bytes:
    asked = PacedAsked(False, True, 9, 5, False, False, api="responses")
    return b"".join(data for _, data, _ in script(pace, asked, fault)[0])


@given(st.lists(st.integers(0, 20_000), max_size=12), st.sampled_from(["lf", "crlf"]), st.integers(1, 4))
def test_however_it_is_cut_the_answer_is_the_same(marks: list[int], newline: Any, per_chunk: int) -> None:
    data = paced_bytes(Pace(newline=newline, tokens_per_chunk=per_chunk, reasoning=2))
    record = Reader().read(RawStream(**vars_of(raw(cut(data, marks)))), ASKED)
    assert (record.status, record.output_tokens, sum(record.chunk_tokens)) == (Status.OK, 9, 9)
    assert (record.finish_reason, record.prompt_tokens) == ("length", 5)


def vars_of(stream: RawStream) -> dict[str, Any]:
    return {name: getattr(stream, name) for name in ("head", "error", "data", "lengths", "stamps", "seen")}


@pytest.mark.parametrize("stream", [True, False])
def test_against_the_paced_server(stream: bool) -> None:
    with PacedServer(fast(reasoning=2)) as server:
        result = push(server, closed(4), work=workload(api="responses", stream=stream), requests=20)
        truth = {one.id: one for one in server.truth()}
    assert result.count(Status.OK) == 20
    assert not result.outcome.prompts_off
    for record in result.measured:
        assert (record.prompt_tokens, record.asked_prompt_tokens, record.output_tokens) == (32, 32, 8)
        if stream:
            assert (record.chunk_tokens, record.answer_first_ns) == ([1] * 8, record.chunk_ns[2])
    assert len(truth) >= 20


def test_every_fault_is_counted_and_named() -> None:
    shares = {"http-500": 0.1, "reset": 0.1, "close": 0.1, "error-event": 0.1, "malformed": 0.1, "empty": 0.1}
    with PacedServer(fast(faults={**shares, "no-finish": 0.1})) as server:
        result = push(server, closed(4), work=workload(api="responses"), requests=60, warmup_requests=1)
        planted = {int(one.id.rpartition("-")[2]): one.fault for one in server.truth() if one.id}
    expected = {
        "": Status.OK, "http-500": Status.HTTP, "reset": Status.RESET, "close": Status.RESET, "empty": Status.EMPTY,
        "error-event": Status.MALFORMED, "malformed": Status.MALFORMED, "no-finish": Status.RESET,
    }  # fmt: skip
    assert {planted[record.index] for record in result.measured} == set(expected)
    assert {record.index: record.status for record in result.measured} == {
        record.index: expected[planted[record.index]] for record in result.measured
    }
