"""Rates in the steady window. Everything that happens in it counts, whichever request it belongs to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from redline.analyse.arrivals import Arrivals, arrivals_of, slice_counts
from redline.analyse.embedding import embeddings
from redline.analyse.latency import Latencies, first_chunk_ns
from redline.analyse.percentile import Floats
from redline.analyse.window import SteadyWindow, in_flight
from redline.store.requests import Bools, Ints, Requests

SLICES = 120
"""Parts of the window that the bootstrap of a rate shuffles."""


@dataclass(frozen=True)
class Rate:
    """Per second. `counts` are what was counted in each of `SLICES` equal parts of the window."""

    value: float
    counts: Floats


def rates_of(requests: Requests, latencies: Latencies, window: SteadyWindow, good: Bools | None) -> dict[str, Rate]:
    """All rates by name. `good` marks the counted requests that met the SLO; None when there is no SLO."""
    ok = np.flatnonzero((requests.status == "ok") & (requests.finished_ns > 0))
    sent = requests.sent_ns[requests.sent_ns > 0]
    vectors = embeddings(requests)
    first = np.where(vectors, requests.finished_ns, first_chunk_ns(requests))
    prompts = first > 0
    arrivals = arrivals_of(requests)
    prompt_tokens = requests.prompt_tokens[prompts].astype(np.float64)
    # what an embedding's arrival counts is its prompt
    out = _tokens(arrivals, window, np.where(vectors, 0.0, 1.0) if vectors.any() else None)
    prompted = _rate(first[prompts], prompt_tokens, window)
    rates = {
        "output_tokens_per_s": out,
        "input_tokens_per_s": prompted,
        "total_tokens_per_s": _per_second(out.counts + prompted.counts, window),
        "requests_per_s": _request_rate(arrivals, ok, window),
        "sent_per_s": _rate(sent, np.ones(len(sent)), window),
    }
    if good is not None:
        rates["goodput_per_s"] = _request_rate(arrivals, latencies.row[good], window)
    return rates


def mean_in_flight(requests: Requests, window: SteadyWindow, ended_ns: int) -> float:
    """Requests in flight, averaged over the steady window."""
    if not (requests.sent_ns > 0).any():
        return 0.0
    return in_flight(requests, ended_ns).mean(window.start_ns, window.end_ns)


def block_length(requests: Requests, window: SteadyWindow) -> int:
    """Slices that last as long as a median request, and at most a quarter of the window."""
    ok = (requests.status == "ok") & (requests.sent_ns > 0)
    if window.seconds <= 0 or not ok.any():
        return 1
    cycle = float(np.median((requests.finished_ns - requests.sent_ns)[ok]))
    return min(max(math.ceil(cycle / (window.end_ns - window.start_ns) * SLICES), 1), SLICES // 4)


def _rate(at: Ints, weight: Floats, window: SteadyWindow) -> Rate:
    return _per_second(slice_counts(at, weight, window.start_ns, window.end_ns, SLICES), window)


def _tokens(arrivals: Arrivals, window: SteadyWindow, weight: Floats | None) -> Rate:
    return _per_second(arrivals.counts(window.start_ns, window.end_ns, SLICES, weight), window)


def _per_second(counts: Floats, window: SteadyWindow) -> Rate:
    """From what was counted in each slice."""
    if window.seconds <= 0:
        return Rate(math.nan, np.empty(0))
    return Rate(float(counts.sum()) / window.seconds, counts)


def _request_rate(arrivals: Arrivals, rows: Ints, window: SteadyWindow) -> Rate:
    """Of the requests in `rows`, each counted with the share of its tokens that arrived in the window.

    Counting whole requests where they end would make the rate depend on where the window's edges happen to cut clients
    that run in step.
    """
    share = np.zeros(len(arrivals.tokens))
    share[rows] = 1 / np.maximum(arrivals.tokens[rows], 1e-9)
    return _tokens(arrivals, window, share)
