"""Where the time of each request went: client, network, queue, prefill, decode, stall, and what nobody can say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from redline.analyse.explain.grid import Floats
from redline.analyse.explain.stalls import Gaps, Stall
from redline.store.requests import Bools, Ints, Requests

PARTS = ("client", "network", "queue", "prefill", "decode", "stall", "unexplained")
BASES = ("spans", "metrics", "timing")
FAST = 0.1
"""Quantile of the waits for the first token of like prompts that counts as a wait without any queue."""
LIKE_MIN = 8
SLOW_MADS = 3.5
SLOW_SHARE_MAX = 0.1


@dataclass(frozen=True)
class EngineTimes:
    """What the engine's spans say of one request, ns; `arrived_ns` on our clock."""

    arrived_ns: int
    queue_ns: int
    prefill_ns: int


@dataclass(frozen=True)
class EngineMeans:
    """What the engine's metrics say of all requests of the load point, mean ms; None where they are silent."""

    queue_ms: float | None = None
    prefill_ms: float | None = None


@dataclass(frozen=True)
class Shares:
    """n requests. `parts[name]` [n] in ns; they sum to `total_ns`. `basis[i]` is the place in BASES of who told queue
    from prefill. `slow_decode_ns` is the part of decode that is beyond the expected step."""

    index: Ints
    total_ns: Floats
    parts: dict[str, Floats]
    slow_decode_ns: Floats
    basis: Ints

    def mean_ms(self, rows: Bools | Ints) -> dict[str, float]:
        """Mean of each part over `rows`, ms; 0 without rows."""
        return {name: float(part[rows].mean()) / 1e6 if part[rows].size else 0.0 for name, part in self.parts.items()}

    def of(self, rows: Bools | Ints) -> dict[str, float]:
        """Each part's share of all the time of `rows`; they sum to 1."""
        total = float(self.total_ns[rows].sum())
        return {name: float(part[rows].sum()) / total if total else 0.0 for name, part in self.parts.items()}


def shares_of(
    requests: Requests,
    gaps: Gaps,
    stalls: list[Stall],
    *,
    engine: Mapping[int, EngineTimes] | None = None,
    means: EngineMeans | None = None,
    lag_ns: float = 0.0,
) -> Shares:
    """Of requests that were sent and ended. `engine` is by request index; `lag_ns` is how late the client gets to what
    is due, so much of the time before a new connection stood is not the network's."""
    total = (_end(requests) - requests.intended_ns).astype(np.float64)
    late = np.maximum(requests.sent_ns - requests.intended_ns, 0).astype(np.float64)
    opened = np.where(requests.connected_ns > 0, requests.connected_ns - requests.intended_ns, 0)
    connecting = np.clip(opened - lag_ns, 0, late)
    parts = {name: np.zeros(len(requests)) for name in PARTS}
    parts["client"], parts["network"] = late - connecting, connecting
    wait, stalled_wait = _waits(requests, stalls)
    parts["stall"] += stalled_wait
    basis = _wait_parts(requests, wait, stalled_wait, parts, engine or {}, means or EngineMeans())
    slow = _stream_parts(requests, gaps, parts)
    known = sum(parts[name] for name in PARTS[:-1])
    parts["unexplained"] = total - known
    return Shares(requests.index, total, parts, slow, basis)


def slow_rows(requests: Requests, shares: Shares) -> Bools:
    """Requests that took longer than others with as long a prompt and answer: beyond median + 3.5 scaled MADs of the
    ratio to the median of their class, at most the slowest tenth."""
    if not len(requests):
        return np.zeros(0, np.bool_)
    ratio = shares.total_ns / np.maximum(_typical(shares.total_ns, _classes(requests)), 1.0)
    middle = float(np.median(ratio))
    spread = 1.4826 * float(np.median(np.abs(ratio - middle)))
    limit = max(middle + SLOW_MADS * spread, 1.1 * middle, float(np.quantile(ratio, 1 - SLOW_SHARE_MAX)))
    return ratio > limit


def _end(requests: Requests) -> Ints:
    last = np.maximum(requests.finished_ns, requests.latest_ns)
    return np.maximum(last, requests.sent_ns)


def _waits(requests: Requests, stalls: list[Stall]) -> tuple[Floats, Floats]:
    """From the send to the first token, and how much of it fell into stalls of all streams, ns."""
    first = np.where(requests.chunks > 0, requests.earliest_ns, _end(requests))
    wait = np.maximum(first - requests.sent_ns, 0).astype(np.float64)
    stalled = np.zeros(len(requests))
    for one in stalls:
        if one.joint:
            overlap = np.minimum(first, one.ended_ns) - np.maximum(requests.sent_ns, one.began_ns)
            stalled += np.maximum(overlap, 0)
    return wait, np.minimum(stalled, wait)


def _wait_parts(
    requests: Requests,
    wait: Floats,
    stalled: Floats,
    parts: dict[str, Floats],
    engine: Mapping[int, EngineTimes],
    means: EngineMeans,
) -> Ints:
    """Fills network, queue and prefill of the wait for the first token; what is left stays unexplained."""
    basis = np.full(len(wait), BASES.index("timing"))
    left = wait - stalled
    fast = np.minimum(_fast_wait(requests, wait), left)
    queue, prefill = np.zeros(len(wait)), fast.copy()
    if means.queue_ms is not None:
        basis[:] = BASES.index("metrics")
        queue, prefill = _by_means(fast, left, means)
    network = np.zeros(len(wait))
    for row in [i for i, index in enumerate(requests.index.tolist()) if index in engine]:
        told = engine[int(requests.index[row])]
        basis[row] = BASES.index("spans")
        there = float(np.clip(told.arrived_ns - requests.sent_ns[row], 0, wait[row]))
        inside = max(wait[row] - there, 0.0)
        queue[row] = min(told.queue_ns, inside)
        prefill[row] = min(told.prefill_ns, inside - queue[row])
        network[row] = there + max(inside - queue[row] - prefill[row], 0.0)
        # a stall lies in some of these, nobody knows in which: each gives its share
        keep = left[row] / wait[row] if wait[row] else 1.0
        queue[row], prefill[row], network[row] = queue[row] * keep, prefill[row] * keep, network[row] * keep
    parts["queue"] += queue
    parts["prefill"] += prefill
    parts["network"] += network
    return basis


def _by_means(fast: Floats, left: Floats, means: EngineMeans) -> tuple[Floats, Floats]:
    """What the engine says that requests waited and computed on average, dealt out over them: the queue in proportion
    to what each waited beyond a fast start, the prefill first to fast starts and then likewise."""
    count, excess = len(fast), left - fast
    queued = (means.queue_ms or 0.0) * 1e6 * count
    queue = excess * min(1.0, queued / excess.sum()) if excess.sum() > 0 else np.zeros(count)
    if means.prefill_ms is None:
        return queue, fast.copy()
    computed, rest = means.prefill_ms * 1e6 * count, excess - queue
    prefill = fast * min(1.0, computed / fast.sum()) if fast.sum() > 0 else np.zeros(count)
    more = max(computed - float(prefill.sum()), 0.0)
    if rest.sum() > 0:
        prefill = prefill + rest * min(1.0, more / rest.sum())
    return queue, prefill


def _stream_parts(requests: Requests, gaps: Gaps, parts: dict[str, Floats]) -> Floats:
    """Fills decode, stall and network of the time between first and last chunk; the slow part of decode, ns."""
    n, excess = len(requests), gaps.excess_ns
    stalled = gaps.stalled & ~gaps.held
    parts["stall"] += np.bincount(gaps.request[stalled], excess[stalled], n)
    parts["network"] += np.bincount(gaps.request[gaps.held], excess[gaps.held], n)
    length = (gaps.ended_ns - gaps.began_ns).astype(np.float64)
    calm = np.where(gaps.stalled, length - excess, length)
    parts["decode"] += np.bincount(gaps.request, calm, n)
    slow = ~gaps.stalled
    found: Floats = np.bincount(gaps.request[slow], excess[slow], n).astype(np.float64)
    return found


def _classes(requests: Requests) -> Ints:
    """Requests of one number have about as long a prompt and an answer, within a factor of two."""
    prompt = np.log2(np.maximum(requests.prompt_tokens, 1)).astype(np.int64)
    answer = np.log2(np.maximum(requests.output_tokens, 1)).astype(np.int64)
    return prompt * 64 + answer


def _typical(values: Floats, classes: Ints) -> Floats:
    """The median of each value's class; over all where a class is too small to have one."""
    found = np.full(len(values), float(np.median(values)) if len(values) else 0.0)
    for one in np.unique(classes):
        mine = classes == one
        if np.count_nonzero(mine) >= LIKE_MIN:
            found[mine] = float(np.median(values[mine]))
    return found


def _fast_wait(requests: Requests, wait: Floats) -> Floats:
    """What a request with such a prompt waits for its first token when nothing is in its way, ns."""
    prompt = np.log2(np.maximum(requests.prompt_tokens, 1)).astype(np.int64)
    found = np.full(len(wait), float(np.quantile(wait, FAST)) if len(wait) else 0.0)
    for one in np.unique(prompt):
        mine = prompt == one
        if np.count_nonzero(mine) >= LIKE_MIN:
            found[mine] = float(np.quantile(wait[mine], FAST))
    least: Floats = np.minimum(found, wait)
    return least
