"""Which requests keep the promise, and how sure a share is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from redline.analyse.finding import Interval
from redline.analyse.latency import Latencies
from redline.store.requests import Bools

Z95 = 1.959963984540054
ITL_LEVEL = 0.99


def met(latencies: Latencies, terms: Mapping[str, float]) -> Bools:
    """Which counted requests are good: they succeeded and meet every term.

    A one-token answer has no TPOT and no gap, and meets those terms; an answer that was not streamed has no TTFT that
    could be judged, and misses that one.
    """
    good: Bools = ~latencies.failed
    for name, limit in terms.items():
        if name == "itl_ms":
            good = good & latencies.gaps.within(limit, ITL_LEVEL)
            continue
        value = latencies.values[name]
        good = good & np.less_equal(value, limit, where=~np.isnan(value), out=np.full(len(value), name != "ttft_ms"))
    return good


def promised_share(share: float) -> str:
    """`95%`, `99.9%`: what was promised is not rounded."""
    return f"{100 * share:g}%"


def wilson(hits: int, n: int) -> Interval | None:
    """Wilson score interval at 95 % for a share; None for n = 0. Right for small n and for shares of 0 and 1."""
    if n == 0:
        return None
    share, square = hits / n, Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    low = 0.0 if hits == 0 else max(centre - half, 0.0)
    return Interval(low, 1.0 if hits == n else min(centre + half, 1.0))
