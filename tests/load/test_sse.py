from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.sse import events


def found(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(event.name, event.data) for event in events(body) if event.ended]


def reference(body: bytes) -> list[tuple[bytes, bytes]]:
    """The WHATWG algorithm, byte by byte, as slow and plain as it is written down."""
    out: list[tuple[bytes, bytes]] = []
    data: list[bytes] = []
    name, line, i = b"", b"", 3 if body.startswith(b"\xef\xbb\xbf") else 0
    while i < len(body):
        byte = body[i : i + 1]
        i += 1
        if byte not in b"\r\n":
            line += byte
            continue
        if byte == b"\r" and body[i : i + 1] == b"\n":
            i += 1
        if line == b"":
            if data:
                out.append((name, b"\n".join(data)))
            data, name = [], b""
        elif not line.startswith(b":"):
            key, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if key == b"data":
                data.append(value)
            elif key == b"event":
                name = value
        line = b""
    return out


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"id: 1\nretry: 5\nevent: x\ndata: a\n\n", [b"a"]),
        (b"data: half", []),
        (b"", []),
    ],
)
def test_known_bodies(body: bytes, expected: list[bytes]) -> None:
    assert [data for _, data in found(body)] == expected


def test_an_event_ends_with_its_blank_line() -> None:
    body = b"data: a\n\n: x\n\ndata: bcd\r\n\r\n"
    assert [body[: event.end] for event in events(body)] == [b"data: a\n\n", body]


def test_what_is_left_over_says_so() -> None:
    last = list(events(b"data: a\n\ndata: b"))[-1]
    assert (last.data, last.ended) == (b"b", False)


@given(
    st.lists(st.sampled_from([b"data: a", b"data:b", b":c", b"event: e", b"d", b"\n", b"\r", b"\r\n", b"\n\n", b" "]))
)
def test_against_the_specification(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert found(body) == reference(body)
