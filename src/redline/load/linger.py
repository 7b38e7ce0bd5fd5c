"""How late a worker may look at its sockets, where the kernel stamps every segment by itself.

Each wake-up costs as much as reading several chunks, and with few streams it finds few. So the worker rests between two
looks: for a quarter of the gap between the chunks of one stream, within the bounds of its target. Streams are then read
chunk by chunk as before, so that one that has to fall back to its socket's stamps loses none of them, and a server that
waits for an acknowledgement before it sends more (Nagle) gets it in time.
"""

from __future__ import annotations

from collections.abc import Collection

from redline.load.frames import Target
from redline.load.wire import Connection

_PART_OF_GAP = 4


class Linger:
    """`ns` is how long to rest, 0 for not at all. The loop adds to `reads` what it found at each look."""

    def __init__(self, target: Target) -> None:
        self.ns = self._least = target.linger_ns
        self._most = max(target.linger_most_ns, target.linger_ns)
        self.reads = 0

    def adapt(self, conns: Collection[Connection], elapsed_ns: int) -> None:
        """After `elapsed_ns` with `reads` reads. Streams that have brought nothing yet do not count."""
        if self._most > self._least:
            streaming = sum(1 for conn in conns if conn.data)
            gap = elapsed_ns * streaming // max(self.reads, 1)
            self.ns = min(max(gap // _PART_OF_GAP, self._least), self._most)
        self.reads = 0
