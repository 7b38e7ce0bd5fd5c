"""A server that answers only so many requests at once: the others wait in the order in which they came."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Slots(Generic[T]):
    """`limit` 0 is no limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._busy: set[int] = set()
        self._waiting: deque[T] = deque()

    def enter(self, who: T) -> bool:
        """True when it may begin at once; else `leave` hands it out later."""
        if not self._limit:
            return True
        if len(self._busy) < self._limit:
            self._busy.add(id(who))
            return True
        self._waiting.append(who)
        return False

    def leave(self, who: T) -> T | None:
        """Who may begin now that `who` is done or gone."""
        if id(who) not in self._busy:
            if who in self._waiting:
                self._waiting.remove(who)
            return None
        self._busy.discard(id(who))
        if not self._waiting:
            return None
        following = self._waiting.popleft()
        self._busy.add(id(following))
        return following
