"""Inter-token gaps. k tokens in one chunk arrive together, so k − 1 of their gaps are 0.

Most gaps of a server that sends several tokens per chunk are those zeros; they are counted, never written out, so
memory follows the number of chunks. A failed request owes the tokens that it was asked for (at most what finished
requests delivered on average, at least one); each that never came is an infinite gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redline.analyse.percentile import Floats, rank
from redline.analyse.ranked import Ranked
from redline.store.requests import Bools, Ints, Requests, Whole
from redline.units import NS_PER_MS

_BLOCK = 1 << 18
"""Chunks looked at in one go: what is computed of them stays in the processor's cache."""
_REQUESTS = 1 << 13
"""Requests whose gaps are looked at in one go, likewise."""


@dataclass(frozen=True)
class Gaps:
    """Gaps of n requests, those of all end to end. Request i has `zeros[i]` gaps of 0, `real[i]` measured ones in `ns`,
    and `missing[i]` infinite ones."""

    ns: Whole
    real: Ints
    zeros: Ints
    missing: Ints

    @property
    def ms(self) -> Floats:
        """The measured gaps."""
        return self.ns / NS_PER_MS

    @property
    def owner(self) -> NDArray[np.int32]:
        """The request of each measured gap."""
        return np.repeat(np.arange(len(self.real), dtype=np.int32), self.real)

    def __len__(self) -> int:
        """All of them, those of 0 and the infinite ones too."""
        return len(self.ns) + int(self.zeros.sum()) + int(self.missing.sum())

    @cached_property
    def ranked(self) -> Ranked:
        """The measured gaps by their place in the sorted order."""
        return Ranked(self.ns)

    @cached_property
    def begins(self) -> Ints:
        """Where in `ns` those of each request begin."""
        return np.cumsum(self.real) - self.real

    def below(self, limit_ns: int) -> Ints:
        """How many measured gaps of each request are at or below `limit_ns`."""
        counts = np.zeros(len(self.real), np.int64)
        some = np.flatnonzero(self.real)
        limit_ns = min(limit_ns, np.iinfo(self.ns.dtype).max)
        narrow = np.uint8 if len(some) and int(self.real.max()) <= 255 else np.int64
        for rows in (some[at : at + _REQUESTS] for at in range(0, len(some), _REQUESTS)):
            begins = self.begins[rows]
            low, high = int(begins[0]), int(begins[-1] + self.real[rows[-1]])
            under = (self.ns[low:high] <= limit_ns).view(np.uint8)
            counts[rows] = np.add.reduceat(under, begins - low, dtype=narrow)
        return counts

    def count(self, failures: bool = True) -> int:
        return len(self) if failures else len(self.ns) + int(self.zeros.sum())

    def per_owner(self) -> Ints:
        """Gaps of each request, missing ones included."""
        return self.zeros + self.missing + self.real

    def of_good(self) -> Gaps:
        """Only the gaps of requests that owe nothing."""
        good = self.missing == 0
        lost = ~good & (self.real > 0)
        ns = self.ns[np.repeat(good, self.real)] if lost.any() else self.ns
        return Gaps(ns, np.where(good, self.real, 0), np.where(good, self.zeros, 0), np.zeros_like(self.missing))

    def percentiles(self, levels: list[float]) -> list[float]:
        """Percentile of all gaps together at each level; NaN when there is none."""
        total, zeros = self.count(), int(self.zeros.sum())
        if total == 0:
            return [math.nan] * len(levels)
        at = np.array([rank(total, level) for level in levels]) - zeros - 1
        found = np.where(at < 0, 0.0, math.inf)
        measured = (at >= 0) & (at < len(self.ns))
        found[measured] = self.ranked.at(at[measured]) / NS_PER_MS
        return [float(value) for value in found]

    def mean(self) -> float:
        """Mean gap; +inf when one is missing, NaN when there is none."""
        total = self.count()
        if total == 0:
            return math.nan
        return math.inf if self.missing.any() else float(self.ns.sum(dtype=np.int64)) / NS_PER_MS / total

    def within(self, limit: float, level: float) -> Bools:
        """Which requests have at least a share `level` of their own gaps at or below `limit`: the percentile at that
        level is. True for a request without any gap."""
        below = self.below(_whole(limit)) + (self.zeros if limit >= 0 else 0)
        enough: Bools = below >= np.ceil(self.per_owner() * level - 1e-9)
        return enough


def gaps_of(requests: Requests) -> Gaps:
    """Gaps of all the requests given. A chunk that carried no token ends no gap: the next token's gap spans it."""
    at, tokens, chunks = requests.chunk_ns, requests.chunk_tokens, requests.chunks
    if len(tokens) and int(tokens.min()) <= 0:
        carries = tokens > 0
        chunks = np.bincount(np.repeat(np.arange(len(requests)), chunks)[carries], minlength=len(requests))
        at = at[carries]
    real = np.maximum(chunks - 1, 0)
    got = requests.delivered
    return Gaps(_measured(at, chunks, int(real.sum())), real, got - chunks, _owed(requests, got))


def _measured(at_ns: Ints, chunks: Ints, total: int) -> Whole:
    """All steps, none below 0; half the size where none is longer than 4.29 s, which is faster to look through."""
    found: Whole = np.empty(total, np.uint32)
    place = 0
    for steps in steps_between(at_ns, chunks):
        np.maximum(steps, 0, out=steps)
        if len(steps) and int(steps.max()) > np.iinfo(found.dtype).max:
            found = found.astype(np.int64)
        found[place : place + len(steps)] = steps
        place += len(steps)
    return found


def steps_between(at_ns: Ints, chunks: Ints) -> Iterator[Ints]:
    """Time from each chunk of a request to its next one, in ns, some requests at a time. `chunks[i]` of the arrivals
    are request i's."""
    ends = np.cumsum(chunks)
    first = 0
    while first < len(at_ns):
        row = int(np.searchsorted(ends, first + _BLOCK, "right"))
        last = int(ends[row - 1]) if row and ends[row - 1] > first else int(ends[row])
        inside = ends[np.searchsorted(ends, first, "right") : np.searchsorted(ends, last)]
        follows = np.ones(last - first - 1, np.bool_)
        follows[inside[(inside > first) & (inside < last)] - first - 1] = False
        yield np.diff(at_ns[first:last])[follows]
        first = last


def tokens_per_chunk(requests: Requests) -> dict[int, int]:
    """How many content chunks carried 1, 2, 3, … tokens, over all the requests given."""
    tokens = requests.chunk_tokens
    most = int(tokens.max()) if len(tokens) else 0
    if most > _BLOCK:
        sizes, counts = np.unique(tokens, return_counts=True)
    else:
        every = sum((np.bincount(tokens[i : i + _BLOCK], minlength=most + 1) for i in range(0, len(tokens), _BLOCK)), 0)
        sizes = np.flatnonzero(every)
        counts = np.asarray(every)[sizes] if len(sizes) else sizes
    return {int(size): int(count) for size, count in zip(sizes, counts, strict=True)}


def _whole(limit_ms: float) -> int:
    """The longest gap in ns that is at or below a limit in ms."""
    if limit_ms >= np.iinfo(np.int64).max / NS_PER_MS:
        return int(np.iinfo(np.int64).max)
    near = math.floor(limit_ms * NS_PER_MS)
    return next(ns for ns in (near + 1, near, near - 1) if ns / NS_PER_MS <= limit_ms)


def _owed(requests: Requests, got: Ints) -> Ints:
    """Tokens that failed requests never delivered. What we cut off or a client abandoned owes nothing."""
    ok = requests.status == "ok"
    failed = ~ok & (requests.status != "cancelled") & (requests.status != "abandoned")
    usual = math.ceil(float(requests.output_tokens[ok].mean())) if ok.any() else 1
    asked = np.where(requests.asked_output_tokens > 0, np.minimum(requests.asked_output_tokens, usual), usual)
    return np.where(failed, np.maximum(asked - got, 1), 0)
