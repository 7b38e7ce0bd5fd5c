"""Offsets to arrival times: whatever TCP does to the segments on their way."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from redline.load.frames import End, RawStream, Stamp, StreamHead
from redline.load.ring import Segments
from redline.load.segments import SegmentLog, deliver

PORT = 40_000
SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=12)


def segments(rows: list[tuple[int, int, int, int, bool]]) -> Segments:
    t, port, seq, size, syn = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Segments(t, port, seq, size, syn != 0)


def stream(
    data: bytes, *, wire_from: int = 0, sent_ns: int = 1, ended_ns: int = 10**9, wire: tuple[int, ...] = ()
) -> RawStream:
    head = StreamHead(7, 1, 0, 0, sent_ns, ended_ns, End.COMPLETE, Stamp.KERNEL, 0, PORT, wire_from)
    return RawStream(head, "", data, [len(data)], [ended_ns], [ended_ns], wire)


def oracle(rows: list[tuple[int, int, int]], whole: int) -> dict[int, int]:
    """By brute force: for each byte, when it and all before it had come."""
    came: dict[int, int] = {}
    for t, start, size in rows:
        for byte in range(max(start, 0), min(start + size, whole)):
            came.setdefault(byte, t)
    when, latest = {}, 0
    for byte in range(whole):
        latest = max(latest, came[byte])
        when[byte] = latest
    return when


@given(SIZES, st.randoms(use_true_random=False), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_against_brute_force(sizes: list[int], rng, again: int, isn: int) -> None:  # type: ignore[no-untyped-def]
    """Reordered, repeated and overlapping segments, anywhere around the wrap of sequence numbers."""
    whole, rows, at = sum(sizes), [], 0
    for size in sizes:
        rows.append((at, size))
        at += size
    for _ in range(again):
        low = rng.randrange(whole)
        rows.append((low, rng.randint(1, whole - low)))
    rng.shuffle(rows)
    timed = [(100 + i, start, size) for i, (start, size) in enumerate(rows)]
    log = SegmentLog()
    log.add(segments([(1, PORT, isn, 0, True)]))
    log.add(segments([(t, PORT, (isn + 1 + start) % 2**32, size, False) for t, start, size in timed]))
    found = log.restamp(stream(bytes(whole)))
    assert found is not None
    assert sum(found.lengths) == whole
    when, byte = oracle(timed, whole), 0
    for length, stamp in zip(found.lengths, found.stamps, strict=True):
        byte += length
        assert when[byte - 1] == stamp
    assert list(found.stamps) == sorted(found.stamps)


@given(SIZES, st.integers(0, 11))
def test_a_segment_that_is_missing_leaves_the_socket_its_say(sizes: list[int], lost: int) -> None:
    log, at, rows = SegmentLog(), 0, []
    for size in sizes:
        rows.append((100 + at, PORT, 6 + at, size, False))
        at += size
    del rows[lost % len(rows)]
    log.add(segments([(1, PORT, 5, 0, True), *rows]))
    assert log.restamp(stream(bytes(at))) is None


def test_answers_one_after_the_other_and_a_port_used_again() -> None:
    log = SegmentLog()
    log.add(segments([(1, PORT, 99, 0, True), (10, PORT, 100, 5, False), (20, PORT, 105, 5, False)]))
    log.add(segments([(30, PORT, 110, 4, False), (50, PORT, 7, 0, True), (60, PORT, 8, 3, False)]))
    first = log.restamp(stream(b"x" * 10, ended_ns=20))
    second = log.restamp(stream(b"y" * 4, wire_from=10, sent_ns=25, ended_ns=30))
    third = log.restamp(stream(b"z" * 3, sent_ns=55, ended_ns=60))
    assert first is not None
    assert second is not None
    assert third is not None
    assert (list(first.stamps), list(second.stamps), list(third.stamps)) == ([10, 20], [30], [60])


def test_a_sealed_stream_keeps_its_pieces_and_gets_the_time_of_their_last_byte() -> None:
    log = SegmentLog()
    log.add(
        segments([(1, PORT, 0, 0, True), (10, PORT, 1, 30, False), (20, PORT, 31, 30, False), (30, PORT, 61, 9, False)])
    )
    head = stream(b"", ended_ns=99).head
    raw = RawStream(head, "", b"abc", [1, 1, 1], [98, 98, 99], [98, 98, 99], (30, 31, 69))
    found = log.restamp(raw)
    assert found is not None
    assert (list(found.lengths), list(found.stamps)) == ([1, 1, 1], [10, 20, 30])


def test_memory_is_given_back_when_streams_are_over() -> None:
    log, seq = SegmentLog(), 1
    log.add(segments([(1, PORT, 0, 0, True)]))
    for i in range(200):
        log.add(segments([(10 * i + j + 10, PORT, seq + j, 1, False) for j in range(10)]))
        raw = stream(b"0123456789", wire_from=seq - 1, sent_ns=10 * i + 5, ended_ns=10 * i + 19)
        assert log.restamp(raw) is not None
        log.forget(raw)
        seq += 10
    assert log.held <= 34 * 10


def test_streams_that_fell_back_give_their_memory_back_too() -> None:
    log = SegmentLog()
    log.add(segments([(1, PORT, 0, 0, True)]))
    for i in range(200):
        log.add(segments([(10 * i + j + 10, PORT, 5 + 20 * i + j, 1, False) for j in range(10)]))
        raw = stream(b"0123456789", wire_from=20 * i, sent_ns=10 * i + 5, ended_ns=10 * i + 19)
        assert log.restamp(raw) is None  # the first four bytes are missing
        log.forget(raw)
    assert log.held <= 34 * 10


def test_a_wall_clock_that_was_set_in_between_is_noticed() -> None:
    """Stamps are realtime: a step before the ring is read moves them past the read, or before the request."""
    second = 10**9
    for step in (-second, 0, second):
        log, at = SegmentLog(), 100 * second
        log.add(segments([(1, PORT, 0, 0, True), (at + step, PORT, 1, 5, False)]))
        found = log.restamp(stream(b"hello", sent_ns=at - 1000, ended_ns=at + 10))
        assert (found is None) == (step != 0)


def test_segments_of_the_connection_before_and_after_stay_out() -> None:
    """The port was used three times, and the sequence numbers of all three lie close together."""
    log = SegmentLog()
    log.add(segments([(1, PORT, 0, 0, True), (5, PORT, 1, 8, False), (10, PORT, 0, 0, True), (20, PORT, 1, 4, False)]))
    log.add(segments([(30, PORT, 5, 4, False), (50, PORT, 0, 0, True), (60, PORT, 1, 8, False)]))
    found = log.restamp(stream(b"x" * 8, sent_ns=15, ended_ns=30))
    assert found is not None
    assert list(found.stamps) == [20, 30]


def test_both_sides_agree_on_the_last_stamp() -> None:
    """It is one stamp of the kernel, brought to monotonic time over two readings of the clocks."""
    log = SegmentLog()
    log.add(segments([(1, PORT, 0, 0, True), (1000, PORT, 1, 4, False), (9000, PORT, 5, 4, False)]))
    found = log.restamp(stream(b"x" * 8, sent_ns=5, ended_ns=9300))
    assert found is not None
    assert (list(found.stamps), found.head.ended_ns) == ([1300, 9300], 9300)


def test_nothing_of_it_came() -> None:
    empty = np.empty(0, np.int64)
    assert deliver(empty, empty, empty, 5) is None
    assert SegmentLog().restamp(stream(b"x")) is None
