"""From the segments of a ring to the stamps of a stream: which byte of the answer arrived when.

A byte counts as arrived when it and everything before it on the connection have: that is when TCP would have handed it
to a client that never sleeps. So of retransmitted and overlapping segments the earliest counts, and a segment that came
ahead of its turn waits for the one that was missing.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from redline.load.frames import RawStream, Stamp
from redline.load.ring import Ints, Segments

_HALF = 1 << 31
_FULL = 1 << 32
_SLACK_NS = 1_000_000
_SAME_NS = 20_000
_MERGE = 32
"""Batches are merged when there are more than this: looking one stream up costs a search in each of them."""

Delivered = tuple[list[int], list[int]]
"""Arrival times, and how far the stream reached with each; both rise."""


class _Batch:
    """Segments sorted by port. `rows` has three: time, sequence number, size; `where` gives the columns of a port."""

    __slots__ = ("rows", "where")

    def __init__(self, rows: Ints, port: Ints) -> None:
        order = np.argsort(port, kind="stable")
        self.rows = rows[:, order]
        ports, first = np.unique(port[order], return_index=True)
        edges = [*first.tolist(), len(port)]
        self.where = {name: slice(edges[i], edges[i + 1]) for i, name in enumerate(ports.tolist())}

    def __len__(self) -> int:
        return self.rows.shape[1]

    @property
    def port(self) -> Ints:
        sizes = [span.stop - span.start for span in self.where.values()]
        return np.repeat(np.array(list(self.where), np.int64), sizes)


class SegmentLog:
    """Segments until the streams that they carried are over."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._opened: dict[int, list[tuple[int, int]]] = {}
        self._done: dict[int, int] = {}
        self.held = 0
        """Segments in memory."""

    def add(self, segments: Segments) -> None:
        """The next batch out of the ring."""
        for i in np.flatnonzero(segments.syn).tolist():
            port = int(segments.port[i])
            # the first byte of data follows the one that SYN stands for
            self._opened.setdefault(port, []).append((int(segments.t_ns[i]), (int(segments.seq[i]) + 1) % _FULL))
        keep = segments.size > 0
        rows = np.stack((segments.t_ns[keep], segments.seq[keep], segments.size[keep]))
        self._batches.append(_Batch(rows, segments.port[keep]))
        self.held += rows.shape[1]
        if len(self._batches) > _MERGE:
            self._merge()

    def _merge(self) -> None:
        """One batch out of all, less what belongs to streams that are over."""
        rows = np.concatenate([batch.rows for batch in self._batches], axis=1)
        port = np.concatenate([batch.port for batch in self._batches])
        over = np.zeros(1 << 16, np.int64)
        over[list(self._done)] = list(self._done.values())
        keep = rows[0] > over[port]
        self._batches = deque([_Batch(rows[:, keep], port[keep])])
        self.held = len(self._batches[0])

    def restamp(self, raw: RawStream) -> RawStream | None:
        """The stream with every segment's own stamp; None when the log does not hold all of it (yet)."""
        head = raw.head
        connection = self._connection(head.port, head.ended_ns)
        size = raw.wire[-1] if raw.wire else len(raw.data)
        if connection is None or size == 0:
            return None
        opened_ns, start, until_ns = connection
        times, seqs, sizes = self._of(head.port, max(opened_ns, self._done.get(head.port, 0)), until_ns)
        relative = (seqs - (start + head.wire_from)) % _FULL
        relative = np.where(relative >= _HALF, relative - _FULL, relative)
        delivered = deliver(times, relative, sizes, size)
        return None if delivered is None else _restamped(raw, *delivered)

    def forget(self, raw: RawStream) -> None:
        """The stream has the stamps it gets: its segments, and all before them on its port, may go."""
        self._done[raw.head.port] = max(self._done.get(raw.head.port, 0), raw.head.ended_ns)

    def _connection(self, port: int, before_ns: int) -> tuple[int, int, int] | None:
        """Of the port's latest connection before then: when it was opened, the sequence number of its first byte, and
        when the next one was opened."""
        opened = self._opened.get(port, [])
        at = bisect.bisect_right(opened, (before_ns, _FULL))
        del opened[: max(at - 1, 0)]
        if not at:
            return None
        opened_ns, start = opened[0]
        return opened_ns, start, opened[1][0] if len(opened) > 1 else 1 << 62

    def _of(self, port: int, since_ns: int, until_ns: int) -> Ints:
        """Time, sequence number and size of the segments that came to `port` between them, in the order of arrival."""
        parts = [batch.rows[:, batch.where[port]] for batch in self._batches if port in batch.where]
        if not parts:
            return np.empty((3, 0), np.int64)
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        inside = (rows[0] > since_ns) & (rows[0] < until_ns)
        return rows if inside.all() else rows[:, inside]


def deliver(times: Ints, start: Ints, size: Ints, whole: int) -> Delivered | None:
    """When each further part of [0, whole) was there without a gap before it; None when some of it never came.

    `start` are offsets of the segments' first bytes, which may be negative (of an answer before this one) or beyond.
    """
    ends = start + size
    if len(times) and start[0] <= 0 and (start[1:] == ends[:-1]).all():
        reached, when = ends, times  # as it nearly always is
    else:
        reached, when = _reassemble(times, start, ends)
    reached = np.clip(reached, 0, whole)
    keep = reached > np.concatenate(([0], reached[:-1])) if len(reached) else np.empty(0, np.bool_)
    if not keep.any() or reached[-1] < whole:
        return None
    # cores may enter their segments into the ring a little out of turn
    return np.maximum.accumulate(when[keep]).tolist(), reached[keep].tolist()


def _reassemble(times: Ints, start: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """High-water marks of what is there without a gap, one per segment in the order of arrival."""
    reached, early = 0, list[tuple[int, int]]()
    marks = []
    for low, high in zip(start.tolist(), ends.tolist(), strict=True):
        bisect.insort(early, (low, high))
        while early and early[0][0] <= reached:
            reached = max(reached, early.pop(0)[1])
        marks.append(reached)
    return np.array(marks, np.int64), times


def _restamped(raw: RawStream, times: list[int], reached: list[int]) -> RawStream | None:
    """`raw` in new pieces, one per segment; of a TLS stream the pieces stay, each with the stamp of its last byte.

    None when a stamp says that bytes came after they were read, or unasked: the wall clock was set in between.
    """
    if raw.wire:
        lengths, seen = raw.lengths, list(raw.seen)
        stamps = [times[bisect.bisect_left(reached, end)] for end in raw.wire]
    else:
        lengths = [b - a for a, b in zip([0, *reached], reached, strict=False)]
        old = list(accumulate(raw.lengths))
        seen = [raw.seen[bisect.bisect_left(old, end)] for end in reached]
        stamps = _aligned(raw, times)
    sent_ns = raw.head.sent_ns
    if stamps[0] < sent_ns - _SLACK_NS or any(a > b + _SLACK_NS for a, b in zip(stamps, seen, strict=True)):
        return None
    stamps = [max(sent_ns, min(a, b)) for a, b in zip(stamps, seen, strict=True)]
    head = raw.head._replace(stamp=Stamp.PACKET, ended_ns=_ended(raw, stamps))
    return replace(raw, head=head, lengths=lengths, stamps=stamps, seen=seen)


def _aligned(raw: RawStream, times: list[int]) -> list[int]:
    """The socket's last stamp and the last segment's are the same one, read over two clock offsets a trifle apart: the
    worker's counts, because the next request of a closed loop was intended at that very instant."""
    apart = raw.stamps[-1] - times[-1]
    return [t + apart for t in times] if abs(apart) < _SAME_NS else times


def _ended(raw: RawStream, stamps: Sequence[int]) -> int:
    """A stream that ended with its last byte ended when that arrived."""
    return stamps[-1] if raw.stamps and raw.head.ended_ns == raw.stamps[-1] else raw.head.ended_ns
