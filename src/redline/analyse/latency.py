"""Latencies of each request, exactly by the definitions in `units`.

Counted are requests of the measurement that ended by themselves: no warm-up, no canary, none that we cut off or that a
client abandoned or read slowly on purpose. A failed request is +inf in every latency. NaN marks a latency that a good
request does not have (TPOT of a one-token answer).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redline.analyse.gaps import Gaps, gaps_of
from redline.analyse.percentile import Floats
from redline.spec.workload import SLOW_READER
from redline.store.requests import Bools, Ints, Requests, Whole
from redline.units import NS_PER_MS

METRICS = ("ttft_ms", "ttft_ms.sent", "ttfat_ms", "tpot_ms", "e2e_ms", "e2e_ms.sent")
"""Latencies with one value per request, by the name that findings carry."""

DEFINITION = {
    "ttft_ms": "ttft_ms/intended@1",
    "ttft_ms.sent": "ttft_ms/sent@1",
    "ttfat_ms": "ttfat_ms/intended@1",
    "tpot_ms": "tpot_ms@1",
    "itl_ms": "itl_ms@1",
    "e2e_ms": "e2e_ms/intended@1",
    "e2e_ms.sent": "e2e_ms/sent@1",
}


@dataclass(frozen=True)
class Latencies:
    """Of n counted requests: `values[metric]` has n entries in ms, `row` their position in the requests given.

    `gaps` holds the inter-token gaps of the same n requests, in the same order.
    """

    row: Ints
    failed: Bools
    values: dict[str, Floats]
    gaps: Gaps

    def __len__(self) -> int:
        return len(self.row)

    def headline(self, metric: str) -> Floats:
        """Values that percentiles are taken of: failures as +inf, what does not apply left out."""
        values = self.values[metric]
        return values[~np.isnan(values)]

    def good(self, metric: str) -> Floats:
        """The same without failures."""
        values = self.values[metric]
        return values[np.isfinite(values)]


def counted(requests: Requests) -> Bools:
    """Which requests latencies are taken of: measured, ordinary, and ended by themselves."""
    by_us = (requests.status == "cancelled") | (requests.status == "abandoned")
    ordinary = (requests.canary < 0) & (requests.request_class != SLOW_READER)
    measured: Bools = ~requests.warmup & ~by_us & ordinary
    return measured


def first_chunk_ns(requests: Requests) -> Ints:
    """Arrival of the first content chunk; 0 where none came."""
    return _at_edge(requests, requests.chunk_ns, requests.chunk_start[:-1])


def last_chunk_ns(requests: Requests) -> Ints:
    return _at_edge(requests, requests.chunk_ns, requests.chunk_start[1:] - 1)


def latencies_of(requests: Requests) -> Latencies:
    """Every latency of every counted request."""
    row = np.flatnonzero(counted(requests))
    kept = requests.pick(row)
    failed: Bools = kept.status != "ok"
    first, last = first_chunk_ns(kept), last_chunk_ns(kept)
    first_tokens = _at_edge(kept, kept.chunk_tokens, kept.chunk_start[:-1])
    after_first = kept.output_tokens - first_tokens
    several = kept.chunks > 1
    values = {
        "ttft_ms": _since(first, kept.intended_ns),
        "ttft_ms.sent": _since(first, kept.sent_ns),
        "ttfat_ms": _since(kept.answer_first_ns, kept.intended_ns),
        "tpot_ms": np.where(several & (after_first > 0), _since(last, first) / np.maximum(after_first, 1), np.nan),
        "e2e_ms": _since(kept.finished_ns, kept.intended_ns),
        "e2e_ms.sent": _since(kept.finished_ns, kept.sent_ns),
    }
    for column in values.values():
        column[failed] = np.inf
    return Latencies(row, failed, values, gaps_of(kept))


def _since(instant: Ints, start: Ints) -> Floats:
    """Distance in ms; NaN where either instant never happened."""
    happened = (instant > 0) & (start > 0)
    return np.where(happened, (instant - start) / NS_PER_MS, np.nan)


def _at_edge(requests: Requests, column: Whole, position: Ints) -> Ints:
    """`column` at one chunk of each request; 0 for requests without chunks."""
    empty = requests.chunks == 0
    if len(column) == 0:
        return np.zeros(len(requests), np.int64)
    return np.where(empty, 0, column[np.where(empty, 0, position)].astype(np.int64))
