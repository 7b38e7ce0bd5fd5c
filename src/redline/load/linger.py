"""How late a worker may look at its sockets, where the kernel stamps every segment by itself.

Each wake-up costs as much as reading several chunks, and with few streams it finds few. So the worker rests between two
looks: for half of the gap between the chunks of one stream, within the bounds of its target. Streams are then read
chunk by chunk as before, so that one that has to fall back to its socket's stamps loses none of them.

Reading is also what acknowledges a chunk. A server that holds small chunks back until the ones before are acknowledged
(Nagle's algorithm: it has not set TCP_NODELAY) would send later because of a late reader, so for such a server there is
no rest. Its chunks give it away: nearly every second one of a pair comes in the moment after a read of the same stream.
(A server that is starved sends in bursts, of which one in four or five does too: that is no proof.)
"""

from __future__ import annotations

from collections.abc import Collection

from redline.load.frames import Target
from redline.load.wire import Connection

ROUND_TRIP_NS = 300_000
"""A chunk that comes so soon after a read of its stream may have waited for the acknowledgement."""
_PART_OF_GAP = 2
_ENOUGH = 100  # reads to judge by, twice
_SHARE, _TIMES_CHANCE = 0.3, 3


class Linger:
    """`ns` is how long to rest, 0 for not at all. The loop adds to `reads` what it found at each look, and to `answers`
    the chunks that came within ROUND_TRIP_NS after one."""

    def __init__(self, target: Target) -> None:
        self.ns = self._least = target.linger_ns
        self._most = max(target.linger_most_ns, target.linger_ns)
        self.reads = self.answers = 0
        self._looked = self._awaited = self._proofs = 0

    def adapt(self, conns: Collection[Connection], elapsed_ns: int) -> bool:
        """After `elapsed_ns` with `reads` reads; True from when on the server was seen to wait for acknowledgements.

        Streams that have brought nothing yet do not count.
        """
        if self.ns:
            streaming = sum(1 for conn in conns if conn.data)
            gap = elapsed_ns * streaming // max(self.reads, 1)
            self.ns = min(max(gap // _PART_OF_GAP, self._least), self._most)
            self._judge(gap)
        self.reads = self.answers = 0
        return self._proofs > 1

    def _judge(self, gap_ns: int) -> None:
        self._looked += self.reads
        self._awaited += self.answers
        if self._looked >= _ENOUGH:
            chance = ROUND_TRIP_NS / max(gap_ns, ROUND_TRIP_NS)
            proven = self._awaited > (_SHARE + _TIMES_CHANCE * chance) * self._looked
            self._proofs = self._proofs + 1 if proven else 0
            self._looked = self._awaited = 0
        if self._proofs > 1:
            self.ns = 0
