"""Clients that come and go while a phase runs: how many there are at any time, and who has to wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redline.load.timer import Agenda


class Levels:
    """Client i takes part while the level is above i. `go` sends a waiting client's next request."""

    def __init__(
        self, levels: Sequence[tuple[int, int]], started_ns: int, agenda: Agenda, go: Callable[[int, int], None]
    ) -> None:
        self._levels = levels
        self._started_ns = started_ns
        self._agenda = agenda
        self._go = go
        self._level = 0
        self._waiting = set(range(max((level for _, level in levels), default=0)))

    def start(self) -> None:
        self._agenda.at(self._started_ns + self._levels[0][0], self._step, 0)

    def holds(self, client: int) -> bool:
        """False: this client has to wait until the level is high enough again; it is told then."""
        if client < self._level:
            return True
        self._waiting.add(client)
        return False

    def _step(self, number: int) -> None:
        offset_ns, self._level = self._levels[number]
        if number + 1 < len(self._levels):
            self._agenda.at(self._started_ns + self._levels[number + 1][0], self._step, number + 1)
        come = sorted(client for client in self._waiting if client < self._level)
        self._waiting.difference_update(come)
        for client in come:
            self._go(client, self._started_ns + offset_ns)
