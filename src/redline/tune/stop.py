"""Ctrl-C made orderly: the first one ends the work in hand and keeps it, the second one ends the program.

While load is running, the first SIGINT or SIGTERM only sets `asked`, which the load generator polls: what is in flight
is recorded as cancelled and the report is still written. At any other time it raises KeyboardInterrupt, which starting
and stopping an engine survive cleanly. From another thread than the main one the handlers are not installed, and
`asked` can be set by hand.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    def __init__(self) -> None:
        self.asked = False
        self._orderly = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not self._orderly:
            raise KeyboardInterrupt

    @contextmanager
    def orderly(self) -> Iterator[None]:
        """Within: the first signal only sets `asked`."""
        self._orderly = True
        try:
            yield
        finally:
            self._orderly = False
