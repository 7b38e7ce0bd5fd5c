"""Inter-token gaps. k tokens in one chunk arrive together, so k − 1 of their gaps are 0.

Most gaps of a server that sends several tokens per chunk are those zeros; they are counted, never written out, so
memory follows the number of chunks. A failed request owes the tokens that it was asked for (at most what finished
requests delivered on average, at least one); each that never came is an infinite gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redline.analyse.percentile import Floats, rank
from redline.store.requests import Bools, Ints, Requests
from redline.units import NS_PER_MS


@dataclass(frozen=True)
class Gaps:
    """Gaps of n requests: m real ones in `ms` with the request of each in `owner`, `zeros` and `missing` per request.

    Request i has `zeros[i]` gaps of 0, the real ones whose owner is i, and `missing[i]` infinite ones.
    """

    ms: Floats
    owner: Ints
    zeros: Ints
    missing: Ints

    def count(self, failures: bool = True) -> int:
        return len(self.ms) + int(self.zeros.sum()) + (int(self.missing.sum()) if failures else 0)

    def per_owner(self) -> Ints:
        """Gaps of each request, missing ones included."""
        return self.zeros + self.missing + np.bincount(self.owner, minlength=len(self.zeros))

    def of_good(self) -> Gaps:
        """Only the gaps of requests that owe nothing."""
        good = self.missing == 0
        keep = good[self.owner]
        return Gaps(self.ms[keep], self.owner[keep], np.where(good, self.zeros, 0), np.zeros_like(self.missing))

    def percentiles(self, levels: list[float]) -> list[float]:
        """Percentile of all gaps together at each level; NaN when there is none."""
        total, zeros = self.count(), int(self.zeros.sum())
        if total == 0:
            return [math.nan] * len(levels)
        ordered = np.sort(self.ms)
        return [_at_rank(ordered, rank(total, level), zeros) for level in levels]

    def mean(self) -> float:
        """Mean gap; +inf when one is missing, NaN when there is none."""
        total = self.count()
        if total == 0:
            return math.nan
        return math.inf if self.missing.any() else float(self.ms.sum()) / total

    def within(self, limit: float, level: float) -> Bools:
        """Which requests have at least a share `level` of their own gaps at or below `limit`: the percentile at that
        level is. True for a request without any gap."""
        below = np.bincount(self.owner[self.ms <= limit], minlength=len(self.zeros)) + (self.zeros if limit >= 0 else 0)
        enough: Bools = below >= np.ceil(self.per_owner() * level - 1e-9)
        return enough


def gaps_of(requests: Requests) -> Gaps:
    """Gaps of all the requests given. A chunk that carried no token ends no gap: the next token's gap spans it."""
    n = len(requests)
    owner = np.repeat(np.arange(n), np.diff(requests.chunk_start))
    carries = requests.chunk_tokens > 0
    owner, at, tokens = owner[carries], requests.chunk_ns[carries], requests.chunk_tokens[carries]
    follows = owner[1:] == owner[:-1]
    ms = np.maximum(np.diff(at)[follows] / NS_PER_MS, 0.0)
    zeros = np.bincount(owner, weights=tokens - 1, minlength=n).astype(np.int64)
    got = np.bincount(owner, weights=tokens, minlength=n).astype(np.int64)
    return Gaps(ms, owner[1:][follows], zeros, _owed(requests, got))


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


def _at_rank(ordered: Floats, position: int, zeros: int) -> float:
    if position <= zeros:
        return 0.0
    beyond = position - zeros - 1
    return float(ordered[beyond]) if beyond < len(ordered) else math.inf
