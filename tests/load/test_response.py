from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redline.load.frames import End
from redline.load.response import read_response
from tests.load.streams import BARE_HEAD, OK_HEAD, chunked, cut, raw

MARKS = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6), MARKS)
def test_every_byte_is_mapped_to_the_piece_that_brought_it(parts: list[bytes], marks: list[int]) -> None:
    framed = chunked(*parts)
    data = OK_HEAD + b"".join(framed)
    pieces = cut(data, marks)
    response = read_response(raw(pieces))
    body = b"".join(parts)
    assert (response.status, response.body, response.whole, response.fault) == (200, body, True, "")
    # where each byte of the body lies in the raw stream, found independently of the parser
    places, at = [], len(OK_HEAD)
    for part, frame in zip(parts, framed, strict=False):
        size_line = frame.index(b"\r\n") + 2
        places += [at + size_line + i for i in range(len(part))]
        at += len(frame)
    for end in range(1, len(body) + 1):
        before, piece = 0, 0
        while before + len(pieces[piece]) <= places[end - 1]:
            before += len(pieces[piece])
            piece += 1
        assert response.piece_of(end) == piece


@given(st.binary(max_size=50), MARKS)
def test_content_length(body: bytes, marks: list[int]) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    response = read_response(raw(cut(data, marks)))
    assert (response.body, response.whole) == (body, True)
    short = read_response(raw([data[:-1]], End.CLOSED))
    assert not short.whole


def test_without_length_the_end_of_the_connection_is_the_end() -> None:
    assert read_response(raw([BARE_HEAD + b"data: a\n\n"], End.CLOSED)).whole
    assert not read_response(raw([BARE_HEAD + b"data: a\n\n"], End.RESET)).whole
    assert not read_response(raw([OK_HEAD + b"5\r\nab"], End.CLOSED)).whole


def test_interim_answers_and_trailers_are_skipped() -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK_HEAD + b"2\r\nab\r\n0\r\nServer-Timing: x\r\n\r\n"
    response = read_response(raw([data]))
    assert (response.status, response.body, response.whole) == (200, b"ab", True)
    assert "link" not in response.headers
    assert "server-timing" not in response.headers


@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_what_follows_the_answer_is_not_the_answer(marks: list[int]) -> None:
    """As servers do that close an idle connection in that very moment."""
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate"
    found = read_response(raw(cut(OK_HEAD + b"".join(chunked(b"hello")) + late, marks)))
    assert (found.status, found.body, found.whole, found.fault) == (200, b"hello", True, "")
    assert "content-length" not in found.headers


def test_no_http_is_said_to_be_none() -> None:
    assert "no proper HTTP" in read_response(raw([b"SSH-2.0-OpenSSH\r\n"], End.BAD)).fault
    assert "no proper HTTP" in read_response(raw([OK_HEAD + b"zz\r\nab\r\n"], End.BAD)).fault
