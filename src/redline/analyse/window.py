"""The steady window of a load point: both edges found from what happened, not guessed.

1. Requests in flight. The plateau is the median, over time, of the number of requests in flight during the middle half
   of the point. The window begins when 90 % of it is first reached and ends when it is last held: ramp and drain go.
   Where the number in flight is no plateau (it is at its median for less than two thirds of the middle: an open loop
   with few or bursty requests), the schedule gives the edges instead: from one lifetime after the first request, when
   what then was in flight has been replaced, to the last arrival. The token rate then only follows the arrivals, so
   step 2 is left out: it would pick a burst, or a pause.
2. Token rate. Inside that, tokens are counted in at least 8 equal slices, each as long as one request or longer, so
   that a request's own rhythm (prompt, then answer) is no trend. Of all sub-windows of at least half the slices the
   one whose mean rate has the smallest standard error wins (the MSER rule of simulation output analysis, applied to
   both edges). It is then widened at each end as far as the slices added are on average within 3 standard errors or 5 %
   of its own rate: only what is clearly different goes.

A backlog counts as growing only after the first lifetime: until then requests in flight grow on any server.

Where there is no steady state (the backlog grows from end to end, or the best sub-window is the shortest allowed), the
window is the whole point and `note` says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from redline.analyse.arrivals import arrivals_of
from redline.analyse.percentile import Floats
from redline.store.requests import Bools, Ints, Requests
from redline.units import NS_PER_S

PLATEAU_SHARE = 0.9
HELD_SHARE = 2 / 3
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
    last_intended = int(requests.intended_ns.max())
    if _grows(steps, start + _quick_ns(requests), last_intended):
        note = "requests in flight grow from start to end: more arrives than the server finishes"
        return SteadyWindow(start, end, False, plateau, True, note)
    cycle = _cycle_ns(requests)
    if _fluctuates(steps, start, last_intended):
        return _by_schedule(SteadyWindow(start, end, False, plateau), int(sent.min() + cycle), last_intended)
    if cycle and high - low < 2 * cycle:
        return SteadyWindow(
            low, high, True, plateau, note="shorter than two requests: a burst more than a steady state"
        )
    return _trim(requests, SteadyWindow(low, high, True, plateau), cycle)


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


def _fluctuates(steps: Steps, start: int, last_intended: int) -> bool:
    """True when fewer than 90 % of the median are in flight for much of the middle half of the arrivals."""
    quarter = (last_intended - start) // 4
    if quarter <= 0:
        return False
    level, length = steps.inside(start + quarter, last_intended - quarter)
    usual = steps.median(start + quarter, last_intended - quarter)
    return usual == 0 or float(length[level >= PLATEAU_SHARE * usual].sum()) < HELD_SHARE * float(length.sum())


def _by_schedule(whole: SteadyWindow, replaced_ns: int, last_intended: int) -> SteadyWindow:
    low, high = max(whole.start_ns, replaced_ns), min(whole.end_ns, last_intended)
    if high - low < (last_intended - whole.start_ns) // 4:
        note = "requests live for most of the time in which they arrive: too short for a steady state"
        return replace(whole, note=note)
    return replace(whole, start_ns=low, end_ns=high, found=True)


def _quick_ns(requests: Requests) -> int:
    """What the quickest tenth of the good requests took: a lifetime without queueing. 0 when none finished."""
    ok = (requests.status == "ok") & (requests.sent_ns > 0)
    return int(np.quantile((requests.finished_ns - requests.sent_ns)[ok], 0.1)) if ok.any() else 0


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
    counts = arrivals_of(requests).counts(window.start_ns, window.end_ns, slices)
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
