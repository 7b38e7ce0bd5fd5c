"""The end of an answer is seen at its last byte, never before, however the bytes are cut."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.frames import End
from redline.load.wire import Connection, Framing
from tests.load.streams import BARE_HEAD, OK_HEAD, chunked, cut

MARKS = st.lists(st.integers(0, 10_000), max_size=12)
NASTY = st.lists(
    st.sampled_from([b"0\r\n\r\n", b"a0\r\n\r\n", b"\r\n", b"data: x\n\n", b"0", b"\r\n0\r\n\r\nxx"]), max_size=8
)


@pytest.fixture(scope="module")
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


def play(sock: socket.socket, pieces: list[bytes]) -> tuple[list[End | None], Connection]:
    conn = Connection(sock, 0)
    said = []
    for piece in pieces:
        conn.data.append(piece)
        conn.size += len(piece)
        said.append(conn.is_over(piece))
    return said, conn


@given(NASTY.filter(bool), MARKS)
def test_chunked(sock: socket.socket, parts: list[bytes], marks: list[int]) -> None:
    pieces = cut(OK_HEAD + b"".join(chunked(*parts)), marks)
    said, conn = play(sock, pieces)
    assert said == [None] * (len(pieces) - 1) + [End.COMPLETE]
    assert (conn.framing, conn.status, conn.keep_alive) == (Framing.CHUNKED, 200, True)


@given(st.binary(max_size=60), MARKS)
def test_content_length(sock: socket.socket, body: bytes, marks: list[int]) -> None:
    pieces = cut(b"HTTP/1.1 503 Busy\r\ncontent-length:  %d\r\nConnection: Close\r\n\r\n" % len(body) + body, marks)
    said, conn = play(sock, pieces)
    assert said == [None] * (len(pieces) - 1) + [End.COMPLETE]
    assert (conn.status, conn.keep_alive) == (503, False)


@given(NASTY, MARKS)
def test_close_delimited_has_no_end_of_its_own(sock: socket.socket, parts: list[bytes], marks: list[int]) -> None:
    said, conn = play(sock, cut(BARE_HEAD + b"".join(parts), marks))
    assert set(said) == {None}
    assert (conn.framing, conn.keep_alive) == (Framing.CLOSE, False)


@given(MARKS)
def test_an_interim_answer_is_not_the_answer(sock: socket.socket, marks: list[int]) -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK_HEAD + b"".join(chunked(b"a"))
    said, conn = play(sock, cut(data, marks))
    assert said[-1] is End.COMPLETE
    assert set(said[:-1]) <= {None}
    assert conn.status == 200


@given(MARKS)
def test_trailers_are_found_when_asked_for(sock: socket.socket, marks: list[int]) -> None:
    data = OK_HEAD + b"1\r\na\r\n0\r\nServer-Timing: total;dur=1\r\n\r\n"
    said, conn = play(sock, cut(data, marks))
    assert set(said) == {None}  # does not look like an end
    assert conn.ask() is End.COMPLETE


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/2 200 OK\r\n\r\n", OK_HEAD + b"zz\r\na\r\n0\r\n\r\n"]
)
def test_what_is_no_http(sock: socket.socket, data: bytes) -> None:
    assert play(sock, [data])[0][-1] is End.BAD


def test_no_content(sock: socket.socket) -> None:
    assert play(sock, [b"HTTP/1.1 204 No Content\r\n\r\n"])[0] == [End.COMPLETE]


@given(st.integers(0, 60))
def test_a_second_message_costs_the_connection(sock: socket.socket, kept: int) -> None:
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate"[: kept + 1]
    _, conn = play(sock, [OK_HEAD + b"".join(chunked(b"a")) + late])
    assert conn.ask() is End.COMPLETE
    assert not conn.keep_alive


@given(st.integers(1, 7), st.booleans())
def test_a_head_that_dribbles_in_is_found_at_its_last_byte(sock: socket.socket, size: int, endless: bool) -> None:
    """However long; one that grows beyond all bounds is no HTTP."""
    data = OK_HEAD[:-2] + b"X-Long: " + b"y" * (400 if not endless else (256 << 10) + 9000) + b"\r\n\r\n"
    pieces = [data[i : i + size * (400 if endless else 1)] for i in range(0, len(data), size * (400 if endless else 1))]
    said, conn = play(sock, pieces)
    assert (End.BAD in said) == endless
    assert endless or (conn.framing, said[-1]) == (Framing.CHUNKED, None)


def test_bytes_after_the_end_cost_the_connection(sock: socket.socket) -> None:
    said, conn = play(sock, [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"])
    assert said == [End.COMPLETE]
    assert not conn.keep_alive
