"""From the engine's thread to an event loop, with one wake-up for everything that came meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from redline.runtime.request import Output, Sink


class Inbox:
    """A step of a hundred sequences wakes the loop once, not a hundred times: waking costs a system call.

    `settle` is called after each delivery. `batched`: somebody calls `wake` at the end of each step, so that nothing
    is delivered in two halves.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settle: Callable[[], None] | None = None, *, batched: bool = False
    ) -> None:
        self._loop = loop
        self._items: deque[tuple[Callable[[Output], None], Output]] = deque()
        self._woken = False
        self._settle = settle
        self._batched = batched

    def sink(self, take: Callable[[Output], None]) -> Sink:
        """A sink for the engine; `take` is called on the event loop."""
        return partial(self._put, take)

    def _put(self, take: Callable[[Output], None], output: Output) -> None:
        self._items.append((take, output))
        if not self._batched:
            self.wake()

    def wake(self) -> None:
        """From any thread."""
        if self._items and not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                return

    def _deliver(self) -> None:
        self._woken = False  # before the items are taken: what is appended from here on wakes again
        items = self._items
        for _ in range(len(items)):  # not until it is empty: the engine may be faster, and others wait for the loop
            take, output = items.popleft()
            take(output)
        if self._settle is not None:
            self._settle()
