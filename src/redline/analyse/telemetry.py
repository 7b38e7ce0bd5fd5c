"""Samples of a stretch of time as few enough numbers to show: means over equal slices, and over the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from redline.analyse.percentile import Floats
from redline.store.requests import Ints

SLICES = 120


@dataclass(frozen=True)
class Line:
    """One curve: its name in the panel, the middles of the slices in seconds from `start`, and the mean in each."""

    name: str
    seconds: Floats
    value: Floats


@dataclass(frozen=True)
class Span:
    """Of the values in a stretch of time; NaN when there is none."""

    mean: float
    low: float
    high: float
    count: int


def span(value: Floats) -> Span:
    known = value[np.isfinite(value)]
    if not len(known):
        return Span(float("nan"), float("nan"), float("nan"), 0)
    return Span(float(known.mean()), float(known.min()), float(known.max()), len(known))


def sliced(name: str, t_ns: Ints, value: Floats, start_ns: int, end_ns: int, slices: int = SLICES) -> Line:
    """Slices without a value are left out: nothing is made up for a sampler that looked less often."""
    width = max((end_ns - start_ns) / slices, 1.0)
    known = np.isfinite(value) & (t_ns >= start_ns) & (t_ns < end_ns)
    place = ((t_ns[known] - start_ns) / width).astype(np.int64).clip(0, slices - 1)
    count = np.bincount(place, minlength=slices)
    total = np.bincount(place, weights=value[known], minlength=slices)
    filled = np.flatnonzero(count)
    seconds = ((filled + 0.5) * width / 1e9).astype(np.float64)
    return Line(name, seconds, (total[filled] / count[filled]).astype(np.float64))


def over_all(series: Sequence[tuple[Ints, Floats]], start_ns: int, end_ns: int) -> Span:
    """Of several series together, e.g. one per GPU: mean of their values, lowest and highest of all."""
    inside = [value[(t_ns >= start_ns) & (t_ns <= end_ns)] for t_ns, value in series]
    return span(np.concatenate(inside) if inside else np.zeros(0))


@dataclass(frozen=True)
class Panel:
    """Curves that share a unit."""

    title: str
    unit: str
    lines: tuple[Line, ...]
