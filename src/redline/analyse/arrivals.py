"""When tokens arrived: counted in equal slices of time, request by request wherever one lies in a single slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redline.analyse.embedding import embeddings
from redline.analyse.percentile import Floats
from redline.store.requests import Ints, Requests


@dataclass(frozen=True)
class Arrivals:
    """Tokens of n requests: `tokens[i]` in all, between `first_ns[i]` and `last_ns[i]`, `scale[i]` for each that a
    chunk of request i is said to carry."""

    requests: Requests
    tokens: Floats
    scale: Floats
    first_ns: Ints
    last_ns: Ints

    def counts(self, start_ns: int, end_ns: int, slices: int, weight: Floats | None = None) -> Floats:
        """Tokens that arrived in each of `slices` equal parts of [start, end), times the weight of their request."""
        first, last = (slice_of(at, start_ns, end_ns, slices) for at in (self.first_ns, self.last_ns))
        whole = self.tokens if weight is None else self.tokens * weight
        found = _sums(first, np.where(first == last, whole, 0.0), slices)
        cut = np.flatnonzero(first < last)  # by an edge: only of these each chunk has to be looked at
        some, scale = self.requests.pick(cut), self.scale if weight is None else self.scale * weight
        each = np.repeat(scale[cut], some.chunks) * some.chunk_tokens
        return found + _sums(slice_of(some.chunk_ns, start_ns, end_ns, slices), each, slices)


def arrivals_of(requests: Requests) -> Arrivals:
    """Of all the requests given.

    Chunks are scaled to the request's output tokens where the two disagree, since the server's count is the better
    one. An answer that came in one piece arrived when it was finished; of an embedding it is the prompt that counts.
    """
    delivered = requests.delivered
    trusted = (requests.output_tokens > 0) & (requests.status == "ok") & (delivered > 0)
    scale = np.where(trusted, requests.output_tokens / np.maximum(delivered, 1), 1.0)
    carried = np.where(embeddings(requests), np.maximum(requests.prompt_tokens, 1), requests.output_tokens)
    whole = (delivered == 0) & (carried > 0) & (requests.finished_ns > 0)
    tokens = np.where(whole, carried, np.where(trusted, requests.output_tokens, delivered)).astype(np.float64)
    first = np.where(whole, requests.finished_ns, requests.earliest_ns)
    return Arrivals(requests, tokens, scale, first, np.where(whole, requests.finished_ns, requests.latest_ns))


def slice_counts(times: Ints, weights: Floats, start_ns: int, end_ns: int, slices: int) -> Floats:
    """Sum of `weights` in each of `slices` equal parts of [start, end)."""
    return _sums(slice_of(times, start_ns, end_ns, slices), weights, slices)


def slice_of(times: Ints, start_ns: int, end_ns: int, slices: int) -> Ints:
    """Which of the equal parts of [start, end) each time is in; -1 before them, `slices` after them."""
    part = (times - start_ns) * slices
    part //= max(end_ns - start_ns, 1)
    return np.clip(part, -1, slices, out=part)


def _sums(part: Ints, weights: Floats, slices: int) -> Floats:
    return np.bincount(part + 1, weights=weights, minlength=slices + 2)[1:-1].astype(np.float64)
