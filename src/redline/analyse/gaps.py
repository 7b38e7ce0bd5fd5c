"""Inter-token gaps. k tokens in one chunk arrive together, so k − 1 of their gaps are 0.

Most gaps of a server that sends several tokens per chunk are those zeros; they are counted, never written out, so
memory follows the number of chunks. A failed request owes the tokens that it was asked for (at most what finished
requests delivered on average, at least one); each that never came is an infinite gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redline.analyse.percentile import Floats, rank
from redline.store.requests import Bools, Ints, Requests
from redline.units import NS_PER_MS

Owners = NDArray[np.int32] | NDArray[np.int64]


@dataclass(frozen=True)
class Gaps:
    """Gaps of n requests: m real ones in `ms` with the request of each in `owner`, `zeros` and `missing` per request.

    Request i has `zeros[i]` gaps of 0, the real ones whose owner is i, and `missing[i]` infinite ones.
    """

    ms: Floats
    owner: Owners
    zeros: Ints
    missing: Ints

    def __len__(self) -> int:
        """All of them, those of 0 and the infinite ones too."""
        return len(self.ms) + int(self.zeros.sum()) + int(self.missing.sum())

    @cached_property
    def ordered(self) -> Floats:
        """The real gaps, sorted."""
        return np.sort(self.ms)

    @cached_property
    def real(self) -> Ints:
        """Real gaps of each request."""
        return np.bincount(self.owner, minlength=len(self.zeros))

    @cached_property
    def _edges(self) -> Ints | None:
        """Where the gaps of each request that has some begin, when they lie in the order of the requests."""
        if len(self.owner) == 0 or bool((self.owner[1:] < self.owner[:-1]).any()):
            return None
        return np.concatenate(([0], np.cumsum(self.real[self.real > 0])[:-1])).astype(np.int64)

    def below(self, limit: float) -> Ints:
        """How many real gaps of each request are at or below `limit`."""
        under = self.ms <= limit
        if self._edges is None or int(self.real.max()) > 255:
            return np.bincount(self.owner[under], minlength=len(self.zeros))
        counts = np.zeros(len(self.zeros), np.int64)
        counts[self.real > 0] = np.add.reduceat(under.view(np.uint8), self._edges, dtype=np.uint8)
        return counts

    def count(self, failures: bool = True) -> int:
        return len(self.ms) + int(self.zeros.sum()) + (int(self.missing.sum()) if failures else 0)

    def per_owner(self) -> Ints:
        """Gaps of each request, missing ones included."""
        return self.zeros + self.missing + self.real

    def of_good(self) -> Gaps:
        """Only the gaps of requests that owe nothing."""
        good = self.missing == 0
        keep = np.repeat(good, self.real) if self._edges is not None else good[self.owner]
        found = Gaps(self.ms[keep], self.owner[keep], np.where(good, self.zeros, 0), np.zeros_like(self.missing))
        found.__dict__["ordered"] = _without(self.ordered, np.sort(self.ms[~keep]))
        return found

    def percentiles(self, levels: list[float]) -> list[float]:
        """Percentile of all gaps together at each level; NaN when there is none."""
        total, zeros = self.count(), int(self.zeros.sum())
        if total == 0:
            return [math.nan] * len(levels)
        return [_at_rank(self.ordered, rank(total, level), zeros) for level in levels]

    def mean(self) -> float:
        """Mean gap; +inf when one is missing, NaN when there is none."""
        total = self.count()
        if total == 0:
            return math.nan
        return math.inf if self.missing.any() else float(self.ms.sum()) / total

    def within(self, limit: float, level: float) -> Bools:
        """Which requests have at least a share `level` of their own gaps at or below `limit`: the percentile at that
        level is. True for a request without any gap."""
        below = self.below(limit) + (self.zeros if limit >= 0 else 0)
        enough: Bools = below >= np.ceil(self.per_owner() * level - 1e-9)
        return enough


def gaps_of(requests: Requests) -> Gaps:
    """Gaps of all the requests given. A chunk that carried no token ends no gap: the next token's gap spans it."""
    n = len(requests)
    at, tokens, chunks = requests.chunk_ns, requests.chunk_tokens, np.diff(requests.chunk_start)
    carries = tokens > 0
    if not carries.all():
        chunks = np.bincount(np.repeat(np.arange(n), chunks)[carries], minlength=n)
        at, tokens = at[carries], tokens[carries]
    some = chunks > 0
    begins = (np.cumsum(chunks) - chunks)[some]
    got = np.zeros(n, np.int64)
    if len(begins):
        got[some] = np.add.reduceat(tokens, begins)
    follows = np.ones(max(len(at) - 1, 0), np.bool_)
    follows[begins[1:] - 1] = False
    ms = np.diff(at)[follows] / NS_PER_MS
    np.maximum(ms, 0.0, out=ms)
    owner = np.repeat(np.arange(n, dtype=np.int32), np.maximum(chunks - 1, 0))
    return Gaps(ms, owner, got - chunks, _owed(requests, got))


def tokens_per_chunk(requests: Requests) -> dict[int, int]:
    """How many content chunks carried 1, 2, 3, … tokens, over all the requests given."""
    sizes, counts = np.unique(requests.chunk_tokens, return_counts=True)
    return {int(size): int(count) for size, count in zip(sizes, counts, strict=True)}


def _owed(requests: Requests, got: Ints) -> Ints:
    """Tokens that failed requests never delivered. What we cut off or a client abandoned owes nothing."""
    ok = requests.status == "ok"
    failed = ~ok & (requests.status != "cancelled") & (requests.status != "abandoned")
    usual = math.ceil(float(requests.output_tokens[ok].mean())) if ok.any() else 1
    asked = np.where(requests.asked_output_tokens > 0, np.minimum(requests.asked_output_tokens, usual), usual)
    return np.where(failed, np.maximum(asked - got, 1), 0)


def _without(ordered: Floats, some: Floats) -> Floats:
    """What is left of sorted values when these (sorted, all among them) are taken out."""
    first = np.searchsorted(some, some)  # equal values are taken from neighbouring places
    return np.delete(ordered, np.searchsorted(ordered, some) + np.arange(len(some)) - first)


def _at_rank(ordered: Floats, position: int, zeros: int) -> float:
    if position <= zeros:
        return 0.0
    beyond = position - zeros - 1
    return float(ordered[beyond]) if beyond < len(ordered) else math.inf
