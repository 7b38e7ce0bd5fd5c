"""How long a prefill chunk may be so that the step, which also decodes, stays within the target between two tokens.

The time of a step is fitted to what was measured: seconds = a + b tokens + c context + d pairs, where context is the KV
that is read and pairs are the (query, key) pairs of prefill chunks. The last steps with and without prefill are kept
apart, so that a long stretch of pure decoding does not wash out what prefill costs. No coefficient may be negative.

Two guards make it careful. Chunks start small and at most double after a step that stayed within the target, whatever
the fit says. And the target is divided by how far the slowest of the steps, but for outliers, were above the fit.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

FIRST_CHUNK = 16
KEPT = 64
REFIT_EVERY = 8


def pairs(start: int, length: int) -> int:
    """(query, key) pairs of a chunk."""
    return start * length + length * (length + 1) // 2


class Work(NamedTuple):
    """What a step has to do. `prefill` counts the tokens of chunks that are no decodes."""

    tokens: int
    context: int
    pairs: int
    prefill: int
    decodes: int


class ChunkSizer:
    """Learns step times and says how many prefill tokens fit beside the decodes. Owned by the engine's thread."""

    def __init__(self, target_ms: float) -> None:
        if target_ms <= 0:
            raise ValueError(f"the target between two tokens must be above 0 ms, got {target_ms}")
        self.target_s = target_ms / 1e3
        self.cap = FIRST_CHUNK
        """Longest prefill of a mixed step that experience allows."""
        self.coefficients = (0.0, 0.0, 0.0, 0.0)
        self.excess = 1.0
        """Measured over fitted time, slowest of the mixed steps, but for outliers."""
        self._plain: deque[tuple[Work, float]] = deque(maxlen=KEPT)
        self._mixed: deque[tuple[Work, float]] = deque(maxlen=KEPT)
        self._unfitted = 0

    def observe(self, work: Work, seconds: float) -> None:
        """A step was measured."""
        if seconds <= 0:
            return
        (self._mixed if work.prefill else self._plain).append((work, seconds))
        self._unfitted += 1
        if work.prefill and work.decodes:
            if seconds > self.target_s:
                self.cap = max(FIRST_CHUNK, int(min(self.cap, work.prefill) * 0.9 * self.target_s / seconds))
            elif work.prefill * 2 >= self.cap:
                self.cap *= 2

    def share(self, work: Work) -> Share:
        """What prefill may add to a step that decodes `work`."""
        if self._unfitted >= REFIT_EVERY or (self._unfitted and len(self._mixed) < REFIT_EVERY):
            self._fit()
        a, b, c, _ = self.coefficients
        return Share(self, self.target_s / self.excess - a - b * work.tokens - c * work.context)

    def longest(self, start: int, seconds: float) -> int:
        """Tokens of a chunk from position `start` that fit into `seconds`, as far as the fit knows."""
        _, b, c, d = self.coefficients
        linear = b + c + d * start
        room = seconds - c * start
        if room <= 0:
            return 0
        if d > 0:  # linear * n + d * n^2 / 2 = room
            return int((math.sqrt(linear * linear + 2 * d * room) - linear) / d)
        return int(room / linear) if linear > 0 else self.cap

    def cost(self, start: int, length: int) -> float:
        """Seconds that a chunk adds to a step."""
        _, b, c, d = self.coefficients
        return b * length + c * (start + length) + d * pairs(start, length)

    def _fit(self) -> None:
        self._unfitted = 0
        seen = [*self._plain, *self._mixed]
        seconds = np.array([s for _, s in seen])
        rows = np.array([(1.0, w.tokens, w.context, w.pairs) for w, _ in seen])
        self.coefficients = fit_positive(rows, seconds)
        if self._mixed:
            fitted = np.array([(1.0, w.tokens, w.context, w.pairs) for w, _ in self._mixed]) @ self.coefficients
            measured = np.array([s for _, s in self._mixed])
            ratios = measured / np.maximum(fitted, 1e-9)
            self.excess = min(max(1.0, float(np.quantile(ratios, 0.97))), 4.0)


def fit_positive(rows: np.ndarray, seconds: np.ndarray) -> tuple[float, float, float, float]:
    """Least squares of the relative error, with the negative terms left out one by one."""
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-12)
    weighted = rows / scale / seconds[:, None]
    # A little ridge: without it two columns that never moved apart may take on huge opposite values.
    gram = weighted.T @ weighted
    gram[np.diag_indices(4)] += 1e-6 * np.trace(gram)
    aim = weighted.sum(axis=0)
    active = [0, 1, 2, 3]
    found = np.zeros(4)
    while active:
        solved = np.linalg.solve(gram[np.ix_(active, active)], aim[active])
        if solved.min() >= 0:
            found[active] = solved
            break
        active.pop(int(solved.argmin()))
    a, b, c, d = (found / scale).tolist()
    return a, b, c, d


class Share:
    """What is left for prefill in one step. The first chunk always gets a little, so that prompts never stand still."""

    __slots__ = ("_first", "_seconds", "_sizer", "_tokens")

    def __init__(self, sizer: ChunkSizer, seconds: float) -> None:
        self._sizer = sizer
        self._seconds = seconds
        self._tokens = sizer.cap
        self._first = True

    @property
    def spent(self) -> bool:
        return not self._first and (self._tokens <= 0 or self._seconds <= 0)

    def take(self, start: int, most: int) -> int:
        """Length of the next chunk, from position `start`, at most `most`; 0 when nothing is left."""
        length = min(most, self._tokens, self._sizer.longest(start, self._seconds))
        if self._first:
            length = max(length, min(most, FIRST_CHUNK))
            self._first = False
        if length > 0:
            self._tokens -= length
            self._seconds -= self._sizer.cost(start, length)
        return max(length, 0)
