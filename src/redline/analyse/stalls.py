"""Stalls of one stream: gaps between chunks that stand out from the rest of the same answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from redline.store.requests import Ints
from redline.units import NS_PER_MS

TIMES_MEDIAN = 5.0
AT_LEAST_MS = 20.0
FEWEST_GAPS = 4


@dataclass(frozen=True)
class Stall:
    """Nothing came from `start_ns` for `ns`; then chunk number `chunk` did. `times` is the gap / the median gap."""

    chunk: int
    start_ns: int
    ns: int
    times: float


def stall_limit_ns(chunk_ns: Ints) -> float:
    """A gap longer than this is a stall: five times the median gap of the answer, and at least 20 ms. Infinite where
    fewer than four gaps say nothing of what is usual."""
    gaps = np.diff(chunk_ns)
    if len(gaps) < FEWEST_GAPS:
        return float("inf")
    return max(TIMES_MEDIAN * float(np.median(gaps)), AT_LEAST_MS * NS_PER_MS)


def find_stalls(chunk_ns: Ints) -> list[Stall]:
    """Longest first."""
    gaps = np.diff(chunk_ns)
    found = np.flatnonzero(gaps > stall_limit_ns(chunk_ns))
    usual = float(np.median(gaps)) if len(gaps) else 0.0
    stalls = [
        Stall(int(i) + 1, int(chunk_ns[i]), int(gaps[i]), float(gaps[i]) / usual if usual else float("inf"))
        for i in found
    ]
    return sorted(stalls, key=lambda stall: -stall.ns)
