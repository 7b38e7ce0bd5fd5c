"""Is this cause at work when time is lost, more than chance would have it? Series on one grid in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redline.analyse.explain.grid import Floats

ALWAYS = 0.95
"""A cause that is at work for more of the time has no time without it to be compared with."""

Active = NDArray[np.bool_]


@dataclass(frozen=True)
class Score:
    """How one cause goes with lost time.

    `duty` is the share of time in which it is at work, `coverage` the share of all lost time that falls into it,
    `lift` the rate of loss while it is at work over the rate at all times, `attributable` the share of lost time that
    would not have been lost at the rate that held without it, `p` the chance of as much overlap by coincidence, `q` the
    same corrected for the number of causes that were looked at. NaN where it cannot be judged.
    """

    duty: float
    coverage: float
    lift: float
    attributable: float
    p: float
    q: float = float("nan")


def shift_p(lost: Floats, active: Active) -> float:
    """One-sided p-value of the overlap of `lost` and `active`, against all circular shifts of one along the other.

    A shift keeps how both series are lumped in time, which a shuffle would destroy. All shifts count, those next to none
    at all too: leaving them out would make the alignment that is tested look rarer than it is. NaN below 8 buckets.
    """
    n = len(lost)
    if n < 8:
        return float("nan")
    # T(s) = sum over t of lost[t] * active[t - s], all shifts at once
    overlap = np.fft.irfft(np.fft.rfft(lost) * np.conj(np.fft.rfft(active.astype(np.float64))), n)
    slack = 1e-9 * max(1.0, float(lost.sum()))  # of the transform: equal overlaps must count as equal
    return float(np.count_nonzero(overlap >= overlap[0] - slack)) / n


def score(lost: Floats, active: Active) -> Score:
    """`lost` [n]: share of time lost in each bucket; `active` [n]: whether the cause was at work in it."""
    nan = float("nan")
    duty, total = float(active.mean()), float(lost.sum())
    if total <= 0 or duty == 0:
        return Score(duty, nan if total <= 0 else 0.0, nan, 0.0, nan)
    inside = float(lost[active].sum())
    coverage = inside / total
    if duty > ALWAYS:
        return Score(duty, coverage, nan, 0.0, nan)
    return Score(
        duty,
        coverage,
        coverage / duty,
        attributable(lost, active) / total,
        shift_p(lost, active),
    )


def attributable(lost: Floats, active: Active) -> float:
    """How much was lost while `active` beyond the rate of the other times; at least 0."""
    count = int(active.sum())
    if count in (0, len(active)):
        return 0.0
    base = float(lost[~active].mean())
    return max(0.0, float(lost[active].sum()) - base * count)


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """q-values in the order of `p`: calling all with q ≤ 0.05 guilty makes at most 5 % of the guilty innocent, on
    average. NaN stays NaN and does not count. (Benjamini and Hochberg, 1995)"""
    values = np.asarray(p, np.float64)
    found = np.full(len(values), np.nan)
    known = np.flatnonzero(np.isfinite(values))
    if len(known):
        order = known[np.argsort(values[known], kind="stable")]
        steps = values[order] * len(order) / np.arange(1, len(order) + 1)
        found[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return [float(q) for q in found]
