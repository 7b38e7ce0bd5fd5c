"""Is this cause at work when time is lost, more than chance would have it? Series on one grid in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.analyse.explain.grid import Floats

ALWAYS = 0.95
"""A cause that is at work for more of the time has no time without it to be compared with."""
IDLE = 0.1
"""Degree below which it is not at work."""


@dataclass(frozen=True)
class Score:
    """How one cause goes with lost time. It is at work to a degree, 0 to 1, in each bucket.

    `duty` is the mean degree, `coverage` the share of all lost time that falls into it (by degree), `lift` coverage
    over duty: how many times the mean loss it has, `ratio` the loss at full work over the loss without it,
    `attributable` the share of lost time that would not have been lost at the rate that held without it, `p` the chance
    of as much overlap by coincidence, `q` the same corrected for the number of causes that were looked at. NaN where it
    cannot be judged.
    """

    duty: float
    coverage: float
    lift: float
    ratio: float
    attributable: float
    p: float
    q: float = float("nan")


def shift_p(lost: Floats, level: Floats) -> float:
    """One-sided p-value of the overlap of `lost` and `level`, against all circular shifts of one along the other.

    A shift keeps how both series are lumped in time, which a shuffle would destroy. All shifts count, those next to
    none at all too: leaving them out would make the alignment that is tested look rarer than it is. NaN below 8
    buckets.
    """
    n = len(lost)
    if n < 8:
        return float("nan")
    # T(s) = sum over t of lost[t] * level[t - s], all shifts at once
    overlap = np.fft.irfft(np.fft.rfft(lost) * np.conj(np.fft.rfft(level)), n)
    slack = 1e-9 * max(1.0, float(lost.sum()))  # of the transform: equal overlaps must count as equal
    return float(np.count_nonzero(overlap >= overlap[0] - slack)) / n


def score(lost: Floats, level: Floats) -> Score:
    """`lost` [n]: share of time lost in each bucket; `level` [n]: how much the cause was at work in it, 0 to 1."""
    nan = float("nan")
    duty, total = float(level.mean()), float(lost.sum())
    if total <= 0 or duty == 0:
        return Score(duty, nan if total <= 0 else 0.0, nan, nan, 0.0, nan)
    coverage = float(lost @ level) / total
    if float((level >= IDLE).mean()) > ALWAYS:
        return Score(duty, coverage, nan, nan, 0.0, nan)
    base, more = fit(lost, level)
    ratio = (base + more) / base if base > 0 else float("inf")
    return Score(duty, coverage, coverage / duty, ratio, attributable(lost, level) / total, shift_p(lost, level))


def fit(lost: Floats, level: Floats) -> tuple[float, float]:
    """Loss without the cause, and how much more there is at full work, by least squares; neither is below 0. For a
    level that is 0 or 1 these are the means without it, and with it less that."""
    spread = level - level.mean()
    square = float(spread @ spread)
    if square <= 1e-12:
        return float(lost.mean()), 0.0
    more = max(float(lost @ spread) / square, 0.0)
    base = float(lost.mean()) - more * float(level.mean())
    if base < 0:  # the line falls below what can be: through what was lost without the cause then
        idle = level < IDLE
        base = float(lost[idle].mean()) if idle.any() else 0.0
        more = max(float((lost - base) @ level) / float(level @ level), 0.0)
    return base, more


def attributable(lost: Floats, level: Floats) -> float:
    """How much was lost that would not have been without the cause; at least 0."""
    return min(fit(lost, level)[1] * float(level.sum()), float(lost.sum()))


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
