"""The steady window of a load point: both edges found from what happened, not guessed.

1. Requests in flight. The plateau is the median, over time, of the number of requests in flight during the middle half
   of the point. The window begins when 90 % of it is first reached and ends when it is last held: ramp and drain go.
2. Token rate. Inside that, tokens are counted in at least 8 equal slices, each as long as one request or longer, so
   that a request's own rhythm (prompt, then answer) is no trend. Of all sub-windows of at least half the slices the
   one whose mean rate has the smallest standard error wins (the MSER rule of simulation output analysis, applied to
   both edges). It is then widened at each end as far as the slices added are on average within 3 standard errors or 5 %
   of its own rate: only what is clearly different goes.

Where there is no steady state (the backlog grows from end to end, or the best sub-window is the shortest allowed), the
window is the whole point and `note` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from redline.analyse.embedding import embeddings
from redline.analyse.percentile import Floats
from redline.store.requests import Bools, Ints, Requests
from redline.units import NS_PER_S

PLATEAU_SHARE = 0.9
MOST_SLICES = 40
FEWEST_SLICES = 8
GROWTH = 1.2


@dataclass(frozen=True)
class SteadyWindow:
    """[start_ns, end_ns). `found` is false when the edges are only those of the point; `note` then says why."""

    start_ns: int
    end_ns: int
    found: bool
    plateau: float = 0.0  # requests in flight
    growing: bool = False
    note: str = ""

    @property
    def seconds(self) -> float:
        return max(self.end_ns - self.start_ns, 0) / NS_PER_S


@dataclass(frozen=True)
class Steps:
    """Requests in flight as a step function: `level[i]` from `t_ns[i]` until `t_ns[i + 1]`."""

    t_ns: Ints
    level: Ints

    def inside(self, start_ns: int, end_ns: int) -> tuple[Ints, Floats]:
        """Levels that hold somewhere in [start, end), and for how many ns."""
        first = max(int(np.searchsorted(self.t_ns, start_ns, "right")) - 1, 0)
        last = int(np.searchsorted(self.t_ns, end_ns))
        until = int(self.t_ns[last]) if last < len(self.t_ns) else end_ns
        edges = np.clip(np.append(self.t_ns[first:last], until), start_ns, end_ns)
        length = np.diff(edges).astype(np.float64)
        held = length > 0
        return self.level[first:last][held], length[held]

    def mean(self, start_ns: int, end_ns: int) -> float:
        if end_ns <= start_ns:
            return 0.0
        level, length = self.inside(start_ns, end_ns)
        return float((level * length).sum()) / (end_ns - start_ns)

    def median(self, start_ns: int, end_ns: int) -> float:
        level, length = self.inside(start_ns, end_ns)
        if len(level) == 0:
            return 0.0
        order = np.argsort(level)
        reached = np.cumsum(length[order])
        return float(level[order][np.searchsorted(reached, reached[-1] / 2)])


def in_flight(requests: Requests, ended_ns: int) -> Steps:
    """From all requests that were sent, warm-up and cut-off ones included: they are load too."""
    sent = requests.sent_ns > 0
    begin = requests.sent_ns[sent]
    end = np.where(requests.finished_ns[sent] > 0, requests.finished_ns[sent], ended_ns)
    times = np.concatenate((begin, np.maximum(end, begin)))
    change = np.concatenate((np.ones(len(begin), np.int64), -np.ones(len(begin), np.int64)))
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(change[order])
    last: Bools = np.append(times[1:] != times[:-1], True) if len(times) else np.empty(0, np.bool_)
    return Steps(times[last], level[last])


def find_window(requests: Requests, measured_from_ns: int, ended_ns: int) -> SteadyWindow:
    """The steady window inside [measured_from, ended]."""
    sent = requests.sent_ns[requests.sent_ns > 0]
    if len(sent) == 0:
        return SteadyWindow(measured_from_ns, measured_from_ns, False, note="no request was sent")
    steps = in_flight(requests, ended_ns)
    start = max(measured_from_ns, int(sent.min()))
    end = min(ended_ns, int(steps.t_ns[-1])) if ended_ns else int(steps.t_ns[-1])
    if end <= start:
        return SteadyWindow(start, start, False, note="the point ended before it began")
    quarter = (end - start) // 4
    plateau = steps.median(start + quarter, end - quarter)
    low, high = _held(steps, start, end, PLATEAU_SHARE * plateau)
    if _grows(steps, start, int(requests.intended_ns.max())):
        note = "requests in flight grow from start to end: more arrives than the server finishes"
        return SteadyWindow(start, end, False, plateau, True, note)
    cycle = _cycle_ns(requests)
    if cycle and high - low < 2 * cycle:
        return SteadyWindow(
            low, high, True, plateau, note="shorter than two requests: a burst more than a steady state"
        )
    return _trim(requests, SteadyWindow(low, high, True, plateau), cycle)


class Arrivals(NamedTuple):
    """`tokens[i]` tokens of request `owner[i]` arrived at `at_ns[i]`."""

    at_ns: Ints
    tokens: Floats
    owner: NDArray[np.int32] | NDArray[np.int64]


def token_arrivals(requests: Requests) -> Arrivals:
    """When tokens arrived and how many, over all the requests given.

    Chunks are scaled to the request's output tokens where the two disagree, since the server's count is the better
    one. An answer that came in one piece arrived when it was finished; of an embedding it is the prompt that counts.
    """
    chunks = np.diff(requests.chunk_start)
    owner = np.repeat(np.arange(len(requests), dtype=np.int32), chunks)
    by_chunk = np.zeros(len(requests))
    if len(requests.chunk_tokens):
        by_chunk[chunks > 0] = np.add.reduceat(requests.chunk_tokens, requests.chunk_start[:-1][chunks > 0])
    trusted = (requests.output_tokens > 0) & (requests.status == "ok") & (by_chunk > 0)
    scale = np.where(trusted, requests.output_tokens / np.maximum(by_chunk, 1), 1.0)
    carried = np.where(embeddings(requests), np.maximum(requests.prompt_tokens, 1), requests.output_tokens)
    whole = np.flatnonzero((by_chunk == 0) & (carried > 0) & (requests.finished_ns > 0))
    tokens = requests.chunk_tokens.astype(np.float64)
    if (scale != 1).any():
        tokens *= np.repeat(scale, chunks)
    if len(whole) == 0:
        return Arrivals(requests.chunk_ns, tokens, owner)
    return Arrivals(
        np.concatenate((requests.chunk_ns, requests.finished_ns[whole])),
        np.concatenate((tokens, carried[whole].astype(np.float64))),
        np.concatenate((owner, whole)),
    )


def slice_counts(times: Ints, weights: Floats, start_ns: int, end_ns: int, slices: int) -> Floats:
    """Sum of `weights` in each of `slices` equal parts of [start, end)."""
    part = slice_of(times, start_ns, end_ns, slices)
    return np.bincount(part, weights=weights, minlength=slices + 1)[:slices].astype(np.float64)


def slice_of(times: Ints, start_ns: int, end_ns: int, slices: int) -> Ints:
    """Which of the equal parts of [start, end) each time is in; `slices` outside of them all."""
    part = (times - start_ns) * slices
    part //= max(end_ns - start_ns, 1)
    part[(times < start_ns) | (times >= end_ns)] = slices
    return part


def _held(steps: Steps, start: int, end: int, level: float) -> tuple[int, int]:
    """First and last instant in [start, end] at which at least `level` requests are in flight."""
    until = np.append(steps.t_ns[1:], end)
    holds = (steps.level >= level) & (until > start) & (steps.t_ns < end)
    if level <= 0 or not holds.any():
        return start, end
    where = np.flatnonzero(holds)
    return max(start, int(steps.t_ns[where[0]])), min(end, int(until[where[-1]]))


def _grows(steps: Steps, start: int, last_intended: int) -> bool:
    """True when the backlog rises from each third of the arrivals to the next, by more than noise."""
    third = (last_intended - start) // 3
    if third <= 0:
        return False
    first, middle, last = (steps.mean(start + i * third, start + (i + 1) * third) for i in range(3))
    return middle > GROWTH * first and last > GROWTH * middle and last - middle > 2 * middle**0.5


def _cycle_ns(requests: Requests) -> float:
    """Median time from sending to the end, of the requests that finished well; 0 when none did."""
    ok = (requests.status == "ok") & (requests.sent_ns > 0)
    return float(np.median((requests.finished_ns - requests.sent_ns)[ok])) if ok.any() else 0.0


def _trim(requests: Requests, window: SteadyWindow, cycle_ns: float) -> SteadyWindow:
    """Step 2: cut a head or a tail in which tokens came at another rate."""
    span = window.end_ns - window.start_ns
    slices = int(min(MOST_SLICES, span // max(cycle_ns, 1.0)))
    if slices < FEWEST_SLICES:
        return window
    times, tokens, _ = token_arrivals(requests)
    counts = slice_counts(times, tokens, window.start_ns, window.end_ns, slices)
    first, last = _least_error(counts)
    kept = counts[first:last]
    first = next(i for i in range(first + 1) if _alike(counts[i:first], kept))
    last = next(i for i in range(slices, last - 1, -1) if _alike(counts[last:i], kept))
    if (first or last < slices) and last - first <= slices // 2:
        note = "the token rate never settles: it drifts over the whole point"
        return SteadyWindow(window.start_ns, window.end_ns, False, window.plateau, note=note)
    return SteadyWindow(
        window.start_ns + span * first // slices, window.start_ns + span * last // slices, True, window.plateau
    )


def _alike(some: Floats, kept: Floats) -> bool:
    """True when the mean of `some` slices is within 3 standard errors or 5 % of the kept ones, or of counting."""
    n, mean = len(some), float(kept.mean())
    if n == 0:
        return True
    noise = max(3 * float(kept.std()) / n**0.5, 0.05 * mean, 2 * (mean / n) ** 0.5)
    return bool(abs(float(some.mean()) - mean) <= noise)


def _least_error(counts: Floats) -> tuple[int, int]:
    """[first, last) of at least half the slices with the smallest squared standard error of the mean."""
    n = len(counts)
    total = np.concatenate(([0.0], np.cumsum(counts)))
    square = np.concatenate(([0.0], np.cumsum(counts**2)))
    first, last = np.triu_indices(n + 1, k=n // 2)
    length = last - first
    mean = (total[last] - total[first]) / length
    spread = np.maximum((square[last] - square[first]) / length - mean**2, 0.0)
    # of equal errors the longest window
    best = np.lexsort((-length, np.round(spread / length, 9)))[0]
    return int(first[best]), int(last[best])
