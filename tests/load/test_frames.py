from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redline.load.frames import (
    End,
    FrameReader,
    Kind,
    Outgoing,
    Stamp,
    pack,
    pack_bodies,
    pack_stream,
    unpack_bodies,
    unpack_stream,
)
from tests.load.streams import cut, head

NS = st.integers(0, 2**62)


@given(st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=60)), max_size=8), st.lists(st.integers(0, 999)))
def test_frames_survive_any_split(frames: list[tuple[Kind, bytes]], marks: list[int]) -> None:
    data = b"".join(pack(kind, payload) for kind, payload in frames)
    reader = FrameReader()
    assert [frame for piece in cut(data, marks) for frame in reader.feed(piece)] == frames


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), NS, NS)), st.sampled_from(End), st.text(max_size=50))
def test_streams_come_back_as_they_were(pieces: list[tuple[bytes, int, int]], end: End, error: str) -> None:
    told = head(end, connect_ns=5, retried=2, stamp=Stamp.USER, port=4711, wire_from=99)
    data, stamps, seen = [p[0] for p in pieces], [p[1] for p in pieces], [p[2] for p in pieces]
    [(kind, payload)] = FrameReader().feed(pack_stream(told, error, data, stamps, seen))
    back = unpack_stream(payload)
    assert kind is Kind.STREAM
    assert (back.head, back.error, back.data) == (told, error, b"".join(data))
    assert (list(back.lengths), list(back.stamps), list(back.seen)) == ([len(d) for d in data], stamps, seen)


@given(st.lists(st.builds(Outgoing, st.integers(0, 2**32 - 1), st.binary(max_size=30), NS, NS, st.integers(0, 2**31))))
def test_bodies_come_back_as_they_were(bodies: list[Outgoing]) -> None:
    [(_, payload)] = FrameReader().feed(pack_bodies(bodies))
    assert list(unpack_bodies(payload)) == bodies


def test_a_very_long_error_is_cut() -> None:
    [(_, payload)] = FrameReader().feed(pack_stream(head(), "é" * 5_000, [], [], []))
    assert 900 < len(unpack_stream(payload).error) <= 1_001
