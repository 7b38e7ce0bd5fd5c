"""Gaps between the chunks of streams against the step time that was to be expected, and the time that they lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redline.analyse.explain.grid import Floats, Grid
from redline.store.requests import Bools, Ints, Requests

SLOW, STALL = 1.5, 3.0
"""A gap beyond so many expected ones is slow, or a stall."""
STALL_MIN_NS = 5_000_000
"""A stall loses at least this: below, the flushing of streams and the stamps of segments are all that is seen."""
BURST = 4
"""Chunks that follow each other within a BURST-th of the expected gap came together."""
HELD = 0.5
"""A gap after which at least this share of the tokens that were due came together was held back, not waited for."""
JOINT = 0.5


@dataclass(frozen=True)
class Gaps:
    """m gaps of measured requests. `request` is the row of the request, `expected_ns` the gap to be expected with as
    many streams, `held` marks those after which the tokens came together: they were made in time and arrived late.
    `joint` marks stalls in which at least half of the other streams stood still too."""

    request: Ints
    began_ns: Ints
    ended_ns: Ints
    expected_ns: Floats
    stalled: Bools
    held: Bools
    joint: Bools

    @property
    def excess_ns(self) -> Floats:
        """Time beyond the expected; 0 for gaps that are not slow."""
        gap = (self.ended_ns - self.began_ns).astype(np.float64)
        return np.where(gap > SLOW * self.expected_ns, gap - self.expected_ns, 0.0)


@dataclass(frozen=True)
class Stall:
    """A stretch in which streams stood still. `streams` did of the `of` that were under way; `held`: tokens were made
    meanwhile and came together at its end."""

    began_ns: int
    ended_ns: int
    streams: int
    of: int
    held: bool

    @property
    def joint(self) -> bool:
        return self.of > 1 and self.streams >= max(2, JOINT * self.of)


def gaps_of(requests: Requests) -> Gaps:
    """Of requests with at least two chunks."""
    start, times = requests.chunk_start, requests.chunk_ns
    if len(times) < 2:
        return _no_gaps()
    row = np.repeat(np.arange(len(requests)), requests.chunks)
    inside = row[1:] == row[:-1]
    began, ended, request = times[:-1][inside], times[1:][inside], row[1:][inside]
    if not len(request):
        return _no_gaps()
    some = requests.chunks > 1
    first, last = times[start[:-1][some]], times[start[1:][some] - 1]
    expected = _expected(began, ended, first, last)
    stalled = (ended - began > STALL * expected) & (ended - began > expected + STALL_MIN_NS)
    tokens = requests.chunk_tokens[1:][inside].astype(np.float64)
    held = stalled & _came_together(request, began, ended, tokens, expected)
    joint = _joint(began, ended, stalled, first, last)
    return Gaps(request, began, ended, expected, stalled, held, joint)


def lost_time(gaps: Gaps, requests: Requests, grid: Grid) -> Floats:
    """[size]: of the time that streams spent between their first and last chunk in each bucket, the share beyond the
    expected; 0 where there was no stream."""
    some = requests.chunks > 1
    start, times = requests.chunk_start, requests.chunk_ns
    streaming = grid.paint(times[start[:-1][some]], times[start[1:][some] - 1])
    length = np.maximum(gaps.ended_ns - gaps.began_ns, 1)
    slow = gaps.excess_ns > 0
    lost = grid.paint(gaps.began_ns[slow], gaps.ended_ns[slow], (gaps.excess_ns / length)[slow])
    return np.clip(np.divide(lost, streaming, out=np.zeros(grid.size), where=streaming > 1e-9), 0.0, 1.0)


def stalls_of(gaps: Gaps, requests: Requests) -> list[Stall]:
    """Stalled gaps that overlap, put together, in the order of time."""
    some = requests.chunks > 1
    start, times = requests.chunk_start, requests.chunk_ns
    first, last = np.sort(times[start[:-1][some]]), np.sort(times[start[1:][some] - 1])
    at = np.flatnonzero(gaps.stalled)
    at = at[np.argsort(gaps.began_ns[at], kind="stable")]
    found: list[Stall] = []
    members: list[int] = []
    end = 0
    for place in [*at.tolist(), -1]:
        if members and (place < 0 or gaps.began_ns[place] >= end):
            found.append(_stall(gaps, members, first, last))
            members, end = [], 0
        if place >= 0:
            members.append(place)
            end = max(end, int(gaps.ended_ns[place]))
    return found


def _stall(gaps: Gaps, members: list[int], first: Ints, last: Ints) -> Stall:
    """From the median of the members' ends: one stream that waits on does not make all of them wait on."""
    began, ended = np.median(gaps.began_ns[members]), np.median(gaps.ended_ns[members])
    streams = len(set(gaps.request[members].tolist()))
    middle = (began + ended) / 2
    of = int(np.searchsorted(first, middle, "right") - np.searchsorted(last, middle, "left"))
    held = bool(gaps.held[members].mean() >= HELD)
    return Stall(int(began), int(ended), streams, max(of, streams), held)


def _expected(began: Ints, ended: Ints, first: Ints, last: Ints) -> Floats:
    """The median gap with as many streams under way, by powers of two of their number."""
    starts, ends = np.sort(first), np.sort(last)
    streams = np.searchsorted(starts, began, "right") - np.searchsorted(ends, began, "right")
    level = np.floor(np.log2(np.maximum(streams, 1))).astype(np.int64)
    gap = (ended - began).astype(np.float64)
    overall = float(np.median(gap))
    expected = np.full(len(gap), max(overall, 1.0))
    for one in np.unique(level):
        mine = level == one
        if np.count_nonzero(mine) >= 20:
            expected[mine] = max(float(np.median(gap[mine])), 1.0)
    return expected


def _came_together(request: Ints, began: Ints, ended: Ints, tokens: Floats, expected: Floats) -> Bools:
    """Whether the tokens that were due during each gap followed it at once, or all that were left of the answer did."""
    gap = (ended - began).astype(np.float64)
    close = gap < expected / BURST
    # runs of close gaps of one request: tokens from each gap on, up to the end of the run that follows it
    broken = np.ones(len(gap) + 1, np.bool_)
    broken[1:-1] = ~close[1:] | (request[1:] != request[:-1])
    ends = np.flatnonzero(broken[1:])  # last gap of each run
    until = ends[np.searchsorted(ends, np.arange(len(gap)))]
    total = np.concatenate(([0.0], np.cumsum(tokens)))
    together = total[until + 1] - total[np.arange(len(gap))]
    usual = max(float(np.median(tokens)), 1.0)
    due = usual * gap / expected
    last = np.append(request[1:] != request[:-1], True)
    found: NDArray[np.bool_] = (together >= 2 * usual) & ((together >= HELD * due) | last[until])
    return found


def _joint(began: Ints, ended: Ints, stalled: Bools, first: Ints, last: Ints) -> Bools:
    """Stalled gaps in whose middle at least half of the other streams stand still."""
    joint = np.zeros(len(began), np.bool_)
    at = np.flatnonzero(stalled)
    if not len(at):
        return joint
    middle = (began[at] + ended[at]) // 2
    still = _under(np.sort(began[at]), np.sort(ended[at]), middle) - 1
    others = _under(np.sort(first), np.sort(last), middle) - 1
    joint[at] = (others > 0) & (still >= JOINT * others)
    return joint


def _under(starts: Ints, ends: Ints, at: Ints) -> Ints:
    """How many intervals hold each instant."""
    found: Ints = np.searchsorted(starts, at, "right") - np.searchsorted(ends, at, "right")
    return found


def _no_gaps() -> Gaps:
    none, no = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    return Gaps(none, none, none, np.zeros(0), no, no, no)
