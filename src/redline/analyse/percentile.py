"""Percentiles that stay true when some values are infinite.

The percentile at level q of n values is the smallest of them with at least a share q of all at or below it: the order
statistic of rank ceil(q n). It is always a value that was measured, never a mixture of two, so a failed request
(+inf) makes a percentile infinite exactly when it belongs to the worst 1 − q, and never NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVELS: dict[str, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

FEW_FOR_P99 = 100
"""Below this many values p99 is their maximum."""


def rank(n: int, level: float) -> int:
    """Position from 1 of the percentile among n sorted values. Guards against 0.07 × 100 = 7.000000000000001."""
    return min(max(math.ceil(n * level - 1e-9), 1), n)


def percentile(values: Floats, level: float) -> float:
    """NaN when there are no values. `values` may hold +inf, and holds no NaN."""
    if len(values) == 0:
        return math.nan
    at = rank(len(values), level) - 1
    return float(np.partition(values, at)[at])


def in_order(ordered: Floats, level: float) -> float:
    """The same of values that are sorted already."""
    return float(ordered[rank(len(ordered), level) - 1]) if len(ordered) else math.nan


def is_maximum(n: int, level: float) -> bool:
    """True when this percentile of n values is the largest of them: n < 100 for p99, 20 for p95, 10 for p90."""
    return n > 0 and rank(n, level) == n


def is_maximum_of(name: str, n: int) -> bool:
    """The same by the name of a finding, such as `ttft_ms.p99`; False for what is no percentile."""
    level = LEVELS.get(name.rpartition(".")[2])
    return level is not None and is_maximum(n, level)


def enough_to_bound(n: int, level: float) -> bool:
    """True when n values bound this percentile from above with 97.5 % confidence.

    The largest of n values lies below the true percentile with probability level^n; a 95 % interval whose upper end
    is a measured value exists only while that is below 2.5 % (n ≥ 368 for p99, 72 for p95, 6 for p50).
    """
    return n > 0 and float(level**n) < 0.025
