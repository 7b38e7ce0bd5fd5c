"""Time cut into equal buckets, and intervals painted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redline.store.requests import Ints

Floats = NDArray[np.float64]
BUCKET_NS = 10_000_000
MOST_BUCKETS = 1 << 17


@dataclass(frozen=True)
class Grid:
    """`size` buckets of `bucket_ns` from `start_ns` on."""

    start_ns: int
    bucket_ns: int
    size: int

    @classmethod
    def over(cls, start_ns: int, end_ns: int, bucket_ns: int = BUCKET_NS) -> Grid:
        """Wider buckets where the stretch is so long that there would be too many."""
        length = max(end_ns - start_ns, 1)
        wide = max(bucket_ns, -(-length // MOST_BUCKETS))
        return cls(start_ns, wide, max(1, -(-length // wide)))

    @property
    def seconds(self) -> Floats:
        """Where each bucket begins, from the start of the grid."""
        return np.arange(self.size, dtype=np.float64) * (self.bucket_ns / 1e9)

    def paint(self, began_ns: Ints, ended_ns: Ints, weight: Floats | float = 1.0) -> Floats:
        """[size]: in each bucket the sum over the intervals of weight times the covered share of the bucket."""
        left, right = self._places(began_ns), self._places(ended_ns)
        weights = np.broadcast_to(np.asarray(weight, np.float64), left.shape)
        some = right > left
        left, right, weights = left[some], right[some], weights[some]
        whole, part = np.zeros(self.size + 2), np.zeros(self.size + 2)
        for edge, sign in ((left, 1.0), (right, -1.0)):
            place = np.minimum(edge.astype(np.int64), self.size)
            # from the next bucket on all of it, in its own what is right of the edge
            whole += sign * np.bincount(place + 1, weights, self.size + 2)
            part += sign * np.bincount(place, weights * (place + 1 - edge), self.size + 2)
        painted: Floats = np.cumsum(whole)[: self.size] + part[: self.size]
        painted[np.abs(painted) < 1e-12] = 0.0
        return painted

    def fill(self, t_ns: Ints, value: Floats, lead_ns: int = 0) -> Floats:
        """[size]: a series whose value at t holds for the time since the value before, at most half a second (and
        `lead_ns` more towards the past); the highest in each bucket, 0 where nothing is known."""
        if not len(t_ns):
            return np.zeros(self.size)
        since = np.concatenate((t_ns[:1] - self.bucket_ns, t_ns[:-1]))
        since = np.maximum(since, t_ns - 500_000_000) - lead_ns
        first = np.floor(self._places(since)).astype(np.int64)
        last = np.ceil(self._places(t_ns)).astype(np.int64)
        filled = np.zeros(self.size)
        for offset in range(int((last - first).max(initial=0))):
            place = first + offset
            inside = (place < last) & (place < self.size)
            np.maximum.at(filled, place[inside], value[inside])
        return filled

    def _places(self, t_ns: Ints | Sequence[int]) -> Floats:
        places: Floats = (np.asarray(t_ns, np.int64) - self.start_ns) / float(self.bucket_ns)
        return np.clip(places, 0.0, float(self.size))
