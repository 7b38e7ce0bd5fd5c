"""How late the worker's loop gets to what is due: measured by a beat of its own, kept in a histogram.

Buckets grow by an eighth, so a percentile read from them is at most that much too high; the largest is kept exactly.
"""

from __future__ import annotations

import time

from redline.clock import now_ns
from redline.load.frames import Target
from redline.load.timer import Agenda
from redline.units import NS_PER_MS

BEAT_NS = 20_000_000
"""Fifty times a second: about a thousandth of a core, and a hiccup of 5 ms is met by one beat in four."""
_UNIT_NS = 1_000


def bucket(lag_ns: int) -> int:
    """Microseconds below 16 one by one, then eight buckets for each doubling."""
    value = max(lag_ns, 0) // _UNIT_NS
    if value < 16:
        return value
    shift = value.bit_length() - 4
    return 8 * shift + (value >> shift)


def upper_ns(index: int) -> int:
    """The smallest lag that is too large for the bucket."""
    if index < 16:
        return (index + 1) * _UNIT_NS
    shift, top = divmod(index - 8, 8)
    return ((top + 9) << shift) * _UNIT_NS


class LoopLag:
    """Beats on `agenda` for as long as that runs."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._due_ns = now_ns() + BEAT_NS
        agenda.at(self._due_ns, self._beat, None)
        self.start_over()

    def start_over(self) -> None:
        self._counts: dict[int, int] = {}
        self._n = self._most_ns = 0

    def add(self, lag_ns: int) -> None:
        index = bucket(lag_ns)
        self._counts[index] = self._counts.get(index, 0) + 1
        self._n += 1
        self._most_ns = max(self._most_ns, lag_ns)

    def _beat(self, _: None) -> None:
        now = now_ns()
        self.add(now - self._due_ns)
        self._due_ns = now + BEAT_NS
        self._agenda.at(self._due_ns, self._beat, None)

    @property
    def max_ms(self) -> float:
        return self._most_ns / NS_PER_MS

    def at_ms(self, level: float) -> float:
        """The percentile at `level`, never below the true one; 0 before the first beat."""
        wanted, seen = level * self._n, 0
        for index in sorted(self._counts):
            seen += self._counts[index]
            if seen >= wanted - 1e-9:
                return min(upper_ns(index), max(self._most_ns, 0)) / NS_PER_MS
        return 0.0


def plant_stalls(agenda: Agenda, target: Target) -> None:
    """Freezes the loop on purpose, where the target says so: how a client's own hiccups show is tested with it."""
    every_ns = int(target.stall_every_ms * 1e6)

    def stall(_: None) -> None:
        time.sleep(target.stall_ms / 1e3)
        agenda.at(now_ns() + every_ns, stall, None)

    if every_ns:
        agenda.at(now_ns() + every_ns, stall, None)
