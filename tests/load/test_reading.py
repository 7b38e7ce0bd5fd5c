"""From bytes to records: every kind of answer and every kind of fault, however the bytes are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.frames import End, RawStream, Stamp
from redline.load.reading import Asked, Reader
from redline.load.record import RequestRecord, Status, TokenSource
from tests.load.streams import (
    BARE_HEAD,
    DONE,
    MS,
    OK_HEAD,
    SENT,
    chat_event,
    chunked,
    cut,
    event,
    raw,
    text_event,
    usage_event,
)

ASKED = Asked(prompt_tokens=12, output_tokens=3, keep_text=True)
THREE = [text_event(" a"), text_event(" b"), text_event(" c")]
FINISH = text_event("", "length")
USAGE = usage_event(12, 3, cached=8)


GZIP_HEAD = OK_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")


def whole(status: str, body: bytes = b"", kind: str = "application/json") -> RawStream:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return raw([head.encode() + body])


def read(stream: RawStream, asked: Asked = ASKED, **how: object) -> RequestRecord:
    return Reader(**how).read(stream, asked)  # type: ignore[arg-type]


def answer(*events: bytes, end: End = End.COMPLETE, last: bool = True) -> RawStream:
    """Head and each event in a piece of its own, the terminator in the last one."""
    pieces = [OK_HEAD, *chunked(*events, last=last)]
    if last:
        pieces[-2:] = [pieces[-2] + pieces[-1]]
    return raw(pieces, end)


def test_a_whole_answer() -> None:
    record = read(answer(*THREE, FINISH, USAGE, DONE))
    assert record.status is Status.OK
    assert record.text == " a b c"
    assert [at - SENT for at in record.chunk_ns] == [20 * MS, 30 * MS, 40 * MS]
    assert (record.chunk_tokens, record.output_tokens, record.token_source) == ([1, 1, 1], 3, TokenSource.USAGE)
    assert (record.prompt_tokens, record.cached_tokens, record.finish_reason) == (12, 8, "length")
    assert (record.first_byte_ns - SENT, record.finished_ns - SENT) == (10 * MS, 70 * MS)
    assert (record.asked_prompt_tokens, record.asked_output_tokens, record.http_status) == (12, 3, 200)
    assert record.shared_stamps == 0


def test_events_in_one_piece_share_its_stamp_and_are_counted() -> None:
    data = b"".join(chunked(b"".join(THREE), FINISH, USAGE, DONE))
    record = read(raw([OK_HEAD, data]))
    assert (record.chunk_ns, record.shared_stamps) == ([SENT + 20 * MS] * 3, 2)


def test_chat_with_role_and_reasoning() -> None:
    record = read(
        answer(
            chat_event({"role": "assistant", "content": ""}, usage=(5, 0)),
            chat_event({"reasoning_content": "hm"}),
            chat_event({"reasoning": "hm"}),
            chat_event({"content": "yes"}),
            chat_event({}, "stop"),
            usage_event(5, 3),
            DONE,
        )
    )
    assert record.status is Status.OK
    assert [at - SENT for at in record.chunk_ns] == [30 * MS, 40 * MS, 50 * MS]
    assert record.answer_first_ns - SENT == 50 * MS
    assert record.chunk_tokens == [1, 1, 1]


def test_thinking_and_never_answering_has_no_first_answer() -> None:
    record = read(answer(chat_event({"reasoning": "hm"}), chat_event({}, "length"), usage_event(5, 1), DONE))
    assert (record.status, record.answer_first_ns, len(record.chunk_ns)) == (Status.OK, 0, 1)


def test_tool_calls_are_content() -> None:
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a":'}}]}
    record = read(answer(chat_event(call), chat_event({}, "tool_calls"), usage_event(5, 2), DONE))
    assert (record.status, record.text, record.output_tokens) == (Status.OK, 'f{"a":', 2)


COMPLETE = [
    pytest.param([*THREE, FINISH, USAGE, DONE], id="everything"),
    pytest.param([*THREE, FINISH, USAGE], id="no [DONE], but a finish reason and a clean end"),
    pytest.param([*THREE, FINISH, DONE], id="no usage"),
    pytest.param([*THREE, DONE], id="no finish reason, but [DONE]"),
    pytest.param([b": ping\n\n", *THREE, b": ping\n\n", FINISH, USAGE, DONE], id="comments"),
    pytest.param([e.replace(b"\n", b"\r\n") for e in [*THREE, FINISH, USAGE, DONE]], id="crlf"),
    pytest.param([b"event: message\nid: 1\n" + e for e in [*THREE, FINISH, USAGE, DONE]], id="named events"),
    pytest.param([*THREE, FINISH, USAGE, b"data: [DONE]"], id="no blank line at the very end"),
    pytest.param([b"data: \n\n", *THREE, FINISH, USAGE, DONE], id="empty data"),
    pytest.param([*THREE, FINISH, USAGE, DONE, b"data: {broken\n\n"], id="rubbish after [DONE]"),
]


@pytest.mark.parametrize("events", COMPLETE)
def test_complete_answers(events: list[bytes]) -> None:
    record = read(answer(*events))
    assert (record.status, record.error, record.text, record.output_tokens) == (Status.OK, "", " a b c", 3)


FAULTS = [
    pytest.param(
        answer(*THREE[:2], event({"error": {"message": "EngineCore died"}}), DONE),
        "malformed",
        "EngineCore died",
        id="error event",
    ),
    pytest.param(
        answer(THREE[0], event({"object": "error", "message": "old vLLM"}), DONE),
        "malformed",
        "old vLLM",
        id="old error event",
    ),
    pytest.param(
        answer(THREE[0], b"event: error\ndata: out of memory\n\n"), "malformed", "out of memory", id="named error event"
    ),
    pytest.param(
        answer(THREE[0], b'data: {"choices": [{"te\n\n', FINISH, DONE), "malformed", "no JSON", id="half an event"
    ),
    pytest.param(answer(THREE[0], b"data: 17\n\n", FINISH, DONE), "malformed", "no JSON object", id="no object"),
    pytest.param(answer(event({"choices": [17]}), DONE), "malformed", "no proper choice", id="odd choice"),
    pytest.param(answer(event({"choices": [{"text": 5}]}), DONE), "malformed", "no proper choice", id="odd text"),
    pytest.param(answer(FINISH, usage_event(12, 0), DONE), "empty", "without one token", id="empty"),
    pytest.param(
        answer(chat_event({"role": "assistant", "content": ""}), DONE), "empty", "without one token", id="empty chat"
    ),
    pytest.param(answer(*THREE), "reset", "without finish_reason and without [DONE]", id="simply ends"),
    pytest.param(
        answer(*THREE, last=False, end=End.CLOSED), "reset", "closed the connection after 3 chunks", id="closed"
    ),
    pytest.param(
        answer(*THREE, FINISH, last=False, end=End.CLOSED), "reset", "closed", id="closed before the terminator"
    ),
    pytest.param(answer(*THREE, last=False, end=End.RESET), "reset", "after 3 chunks", id="reset"),
    pytest.param(answer(*THREE, last=False, end=End.IDLE), "timeout", "silent for too long after 3 chunks", id="stall"),
    pytest.param(answer(*THREE, last=False, end=End.SLOW), "timeout", "not done in time", id="too slow"),
    pytest.param(answer(*THREE, last=False, end=End.CANCELLED), "cancelled", "", id="cancelled"),
    pytest.param(raw([OK_HEAD[:20]], End.IDLE), "timeout", "before a whole head", id="slow headers"),
    pytest.param(raw([b"SSH-2.0-OpenSSH\r\n"], End.BAD), "malformed", "HTTP", id="not http"),
    pytest.param(raw([], End.CONNECT, "connection refused"), "connect", "connection refused", id="refused"),
    pytest.param(raw([], End.IDLE), "timeout", "no answer at all", id="mute"),
    pytest.param(raw([], End.IDLE, sent_ns=0), "timeout", "no connection", id="black hole"),
    pytest.param(raw([], End.CANCELLED), "cancelled", "", id="cancelled early"),
    pytest.param(whole("500 E", b'{"error":{"message":"out of blocks"}}'), "http", "HTTP 500: out of blocks", id="500"),
    pytest.param(whole("422 E", b'{"detail":"bad prompt"}'), "http", "HTTP 422: bad prompt", id="422"),
    pytest.param(whole("302 F"), "http", "HTTP 302", id="redirect"),
    pytest.param(whole("200 OK", b"<html/>", "text/html"), "malformed", "text/html", id="a page"),
    pytest.param(whole("200 OK", b'{"error":{"message":"nope"}}'), "malformed", "nope", id="json error with 200"),
    pytest.param(raw([GZIP_HEAD + b"0\r\n\r\n"]), "malformed", "gzip", id="gzip"),
]


@pytest.mark.parametrize(("stream", "status", "words"), FAULTS)
def test_faults(stream: RawStream, status: str, words: str) -> None:
    record = read(stream)
    assert record.status.value == status
    assert words in record.error
    assert record.failed is (status != "cancelled")


def test_what_came_before_a_fault_is_kept() -> None:
    record = read(answer(*THREE, last=False, end=End.RESET))
    assert (len(record.chunk_ns), record.output_tokens, record.token_source) == (3, 3, TokenSource.CHUNKS)


def test_a_cut_off_event_is_no_event() -> None:
    whole = b"".join([OK_HEAD, *chunked(*THREE, last=False)])
    record = read(raw([whole[:-30]], End.CLOSED))
    assert (record.status, len(record.chunk_ns)) == (Status.RESET, 2)


def test_a_server_that_says_done_and_then_dawdles_was_done() -> None:
    stream = answer(*THREE, FINISH, USAGE, DONE, last=False, end=End.IDLE)
    record = read(replace(stream, head=stream.head._replace(ended_ns=SENT + 60_000 * MS)))
    assert (record.status, record.finished_ns) == (Status.OK, stream.stamps[-1])


def test_close_delimited() -> None:
    whole = b"".join([*THREE, FINISH, USAGE, DONE])
    assert read(raw([BARE_HEAD, whole], End.CLOSED)).status is Status.OK
    assert read(raw([BARE_HEAD, whole[: -len(DONE)]], End.CLOSED)).status is Status.OK
    assert read(raw([BARE_HEAD, *THREE], End.CLOSED)).status is Status.RESET


def test_not_streamed() -> None:
    usage = b'"usage":{"prompt_tokens":4,"completion_tokens":2}'
    body = b'{"choices":[{"message":{"content":"a b"},"finish_reason":"stop"}],%b}' % usage
    pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body[:20], body[20:]]
    record = read(raw(pieces), replace(ASKED, stream=False))
    assert (record.status, record.chunk_ns, record.chunk_tokens) == (Status.OK, [SENT + 30 * MS], [2])
    assert record.text == "a b"
    cut_off = read(raw(pieces[:2], End.CLOSED), replace(ASKED, stream=False))
    assert cut_off.status is Status.RESET
    empty = body.replace(b"a b", b"").replace(b":2}", b":0}")
    pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(empty), empty]
    assert read(raw(pieces), replace(ASKED, stream=False)).status is Status.EMPTY


@pytest.mark.parametrize("usage", [b'"none"', b"[3]", b"3"])
def test_usage_that_is_no_object_counts_for_nothing(usage: bytes) -> None:
    odd = b'data: {"choices":[],"usage":%b}\n\n' % usage
    record = read(answer(*THREE, FINISH, odd, DONE))
    assert (record.status, record.token_source) == (Status.OK, TokenSource.CHUNKS)
    body = b'{"choices":[{"text":"a b","finish_reason":"stop"}],"usage":%b}' % usage
    record = read(whole("200 OK", body), replace(ASKED, stream=False))
    assert (record.status, record.token_source) == (Status.OK, TokenSource.CHUNKS)


@pytest.mark.parametrize(
    "choice",
    [
        b'{"message":{"content":[{"type":"text","text":"a"}]}}',
        b'{"message":{"content":"a","reasoning":{"text":"hm"}}}',
        b'{"text":["a"]}',
        b'{"text":"a","logprobs":"many"}',
        b'{"text":"a","logprobs":{"content":3}}',
    ],
)
def test_a_choice_of_another_shape_is_malformed_and_no_crash(choice: bytes) -> None:
    record = read(whole("200 OK", b'{"choices":[%b]}' % choice), replace(ASKED, stream=False))
    assert record.status is Status.MALFORMED
    assert "no proper choice" in record.error


def test_the_api_key_never_shows() -> None:
    body = b'{"error":{"message":"Incorrect API key provided: sk-secret"}}'
    stream = raw([b"HTTP/1.1 401 U\r\nContent-Length: %d\r\n\r\n" % len(body) + body])
    assert read(stream, secret="sk-secret").error == "HTTP 401: Incorrect API key provided: ***"


def test_user_space_stamps_are_labelled() -> None:
    assert read(raw([OK_HEAD, *chunked(*THREE, FINISH, DONE)], stamp=Stamp.USER)).stamp == "user"


def test_texts_are_counted_when_the_server_does_not() -> None:
    def count(texts: Sequence[str]) -> list[int]:
        return [2 * len(text.split()) for text in texts]

    record = read(answer(*THREE, FINISH, DONE), count=count, source=TokenSource.SERVER_TOKENIZER)
    assert (record.chunk_tokens, record.output_tokens) == ([2, 2, 2], 6)
    assert record.token_source is TokenSource.SERVER_TOKENIZER


STREAMS = st.sampled_from(
    [
        (tuple(p.values[0]), End.COMPLETE, True)  # type: ignore[arg-type]
        for p in COMPLETE
    ]
    + [((*THREE[:2], event({"error": {"message": "x"}}), DONE), End.COMPLETE, True), ((*THREE,), End.CLOSED, False)]
    + [
        (
            (text_event("naïve 東京 🙂"), FINISH, USAGE, DONE),
            End.COMPLETE,
            True,
        )
    ]
)


@given(STREAMS, st.lists(st.integers(0, 5_000), max_size=20), st.sampled_from(["chunked", "close"]))
def test_where_the_bytes_are_cut_changes_nothing_but_the_stamps(
    stream: tuple[tuple[bytes, ...], End, bool], marks: list[int], framing: str
) -> None:
    events, end, last = stream
    if framing == "chunked":
        data = OK_HEAD + b"".join(chunked(*events, last=last))
    else:
        data, end = BARE_HEAD + b"".join(events), End.CLOSED
    once, pieces = read(raw([data], end)), cut(data, marks)
    many = read(raw(pieces, end))
    for name in ("status", "error", "text", "chunk_tokens", "output_tokens", "finish_reason", "prompt_tokens"):
        assert getattr(many, name) == getattr(once, name), name
    assert many.chunk_ns == sorted(many.chunk_ns)
    # every chunk carries the stamp of the piece with the last byte of its event
    ends = [data.index(e) + len(e) for e in events if e in data][: len(many.chunk_ns)]
    if all(e.startswith(b"data: {") for e in events[: len(many.chunk_ns)]):
        for at, place in zip(many.chunk_ns, ends, strict=True):
            before, piece = 0, 0
            while before + len(pieces[piece]) < place:
                before += len(pieces[piece])
                piece += 1
            assert at == SENT + 10 * MS * (piece + 1)
