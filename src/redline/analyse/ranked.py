"""Order statistics of very many whole numbers, without sorting them all.

They are counted once by their leading bits. Of any position in the sorted order that tells which numbers come into
question: those that share their leading bits with the one that stands there, a few in a thousand. Only they are sorted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from redline.store.requests import Ints, Whole

_BLOCK = 1 << 16
"""Numbers looked at in one go: what is computed of them stays in the processor's cache."""
_FINE = 14
"""Bits that are told apart in a number as large as all but the largest hundredth."""
_KEYS = 1 << (_FINE + 2)
"""Numbers four times as large as that fall together: they are few."""


class Ranked:
    """n whole numbers, none below 0, in any order; they are not copied."""

    def __init__(self, values: Whole) -> None:
        self._values = values
        some = np.sort(values[:: max(len(values) // 10_000, 1)])
        usual = int(some[len(some) * 99 // 100]) if len(some) else 0
        self._shift = max(usual.bit_length() - _FINE, 0)  # how well it fits decides the time, not what is found
        self._counts = np.zeros(_KEYS, np.int64)
        for block in self._blocks():
            found = np.bincount(self._key(block))
            self._counts[: len(found)] += found
        self._upto = np.cumsum(self._counts)

    def at(self, positions: Ints) -> Ints:
        """The numbers that stand at these positions (from 0, in any order) when all are sorted."""
        if len(positions) == 0:
            return np.empty(0, np.int64)
        bucket = np.searchsorted(self._upto, positions, "right")
        wanted = np.zeros(_KEYS, np.bool_)
        wanted[bucket] = True
        some = np.concatenate([block[wanted.take(self._key(block))] for block in self._blocks()])
        some.sort()
        ahead = np.cumsum(np.where(wanted, self._counts, 0)) - self._counts  # of `some`, in lower buckets
        return some[positions - (self._upto - self._counts)[bucket] + ahead[bucket]].astype(np.int64)

    def _key(self, values: Whole) -> Whole:
        """The leading bits: never falls where the numbers rise."""
        key: Whole = np.minimum(values >> self._shift, _KEYS - 1)
        return key

    def _blocks(self) -> Iterator[Whole]:
        for first in range(0, len(self._values), _BLOCK):
            yield self._values[first : first + _BLOCK]
