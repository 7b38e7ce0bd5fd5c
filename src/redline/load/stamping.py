"""Who stamps arrivals, and the way of a finished stream through the packet ring, where there is one.

The ring hands blocks over a few hundredths of a second after the packets in them came. A stream that is finished
waits here for so long, and leaves with the stamps of its own segments; one whose segments are not all there keeps the
stamps of the socket, and is counted.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Literal

from redline.clock import now_ns
from redline.errors import EnvironmentFault, Skipped
from redline.load.frames import RawStream, Stamp, Target
from redline.load.ring import RING_BYTES, PacketRing, Segments, open_ring
from redline.load.segments import SegmentLog

Tier = Literal["auto", "packet", "kernel", "user"]
_DRAIN_EVERY_NS = 40_000_000
_PATIENCE_NS = 300_000_000
"""So long after its end a stream may wait for segments that a busy kernel is late to hand over."""
_AT_ONCE = 64
"""Streams come free in bursts, one per emptying of the ring; in between the worker wants to be heard and fed."""
LINGER_NS, LINGER_MOST_NS = 1_000_000, 10_000_000
LINGER_CLOSED_NS = 500_000
"""How late a worker may look at its sockets. Where a request waits for an answer (closed loops, conversations, a cap on
requests in flight) it leaves that much later at most: send lag, and counted as such. Elsewhere nothing leaves late."""
_FLUSH_S = 1.0


@dataclass
class StampReport:
    """What the ring did during a load point. `tier` is the best one that was open, `why_not` says why none better."""

    asked: str
    tier: str
    ring_bytes: int = 0
    segments: int = 0
    dropped: int = 0
    """Segments that the ring had no room for."""
    restamped: int = 0
    fell_back: int = 0
    """Streams that kept the socket's stamps, because not all of their segments were in the ring."""
    merged: int = 0
    """Segments that the receiving side had put together (GRO) before they were stamped."""
    why_not: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def notes(self) -> list[str]:
        """What somebody who reads the numbers should know."""
        found = []
        if self.why_not:
            found.append(f"arrivals were stamped per read, not per segment: {self.why_not}")
        if self.fell_back:
            why = f"{self.dropped} segments found no room in the packet ring" if self.dropped else (
                "the packet ring never saw all of their segments" if self.segments else
                "no packet came from the server's own address: it is behind a proxy or address translation"
            )  # fmt: skip
            of = self.fell_back + self.restamped
            found.append(f"{self.fell_back} of {of} answers kept the stamps of their sockets: {why}")
        if self.merged:
            found.append(
                f"{self.merged} segments were put together by the network device before they were stamped; their "
                "tokens share a stamp (ethtool -K DEVICE gro off)"
            )
        return found


class Stamper:
    """EnvironmentFault when `packet` is asked for and cannot be had."""

    def __init__(self, target: Target, asked: Tier, ring_bytes: int = RING_BYTES) -> None:
        self._ring: PacketRing | None = None
        self.report = StampReport(asked, "user" if asked == "user" else "kernel")
        if asked in ("auto", "packet"):
            self._open(target, asked, ring_bytes)
        self._log = SegmentLog()
        self._waiting: deque[RawStream] = deque()
        self._drained_ns = 0

    def _open(self, target: Target, asked: Tier, ring_bytes: int) -> None:
        ring = open_ring(target, ring_bytes)
        if isinstance(ring, PacketRing):
            self._ring = ring
            self.report.tier, self.report.ring_bytes = "packet", ring_bytes
        elif asked == "packet":
            raise EnvironmentFault(ring.reason, fix=f"{ring.how_to_get_it}; or stamps: auto")
        else:
            self.report.why_not = _said(ring)

    def eased(self, target: Target, *, closed: bool) -> Target:
        """The target for workers: where segments are stamped by themselves, reading a little later costs nothing.

        `closed` when requests wait for answers.
        """
        if self._ring is None:
            return target
        if closed:
            return replace(target, linger_ns=LINGER_CLOSED_NS)
        return replace(target, linger_ns=LINGER_NS, linger_most_ns=LINGER_MOST_NS)

    def __enter__(self) -> Stamper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._ring is not None:
            self._ring.close()

    def put(self, raw: RawStream) -> None:
        """A stream that is over."""
        self._waiting.append(raw)

    @property
    def behind(self) -> bool:
        """Another call of `ready` would have something to look at."""
        return (
            self._ring is not None and bool(self._waiting) and self._waiting[0].head.ended_ns <= self._ring.settled_ns
        )

    def ready(self) -> list[RawStream]:
        """Some of the streams whose stamps are as good as they get. Call it often: it empties the ring too."""
        ring = self._ring
        if ring is None:
            everything, self._waiting = list(self._waiting), deque()
            return everything
        if now_ns() - self._drained_ns > _DRAIN_EVERY_NS:
            self._drain(ring)
        streams: list[RawStream] = []
        while self.behind and len(streams) < _AT_ONCE:
            better = self._better(self._waiting[0])
            if better is None and now_ns() - self._waiting[0].head.ended_ns < _PATIENCE_NS:
                break
            streams.append(self._settled(self._waiting.popleft(), better))
        return streams

    def flush(self) -> list[RawStream]:
        """All that still wait."""
        streams, end = self.ready(), time.monotonic() + _FLUSH_S
        while self._waiting and time.monotonic() < end:
            time.sleep(0.002 if self.behind else 0.02)
            streams += self.ready()
        streams += [self._settled(raw, self._better(raw)) for raw in self._waiting]
        self._waiting.clear()
        return streams

    def _drain(self, ring: PacketRing) -> None:
        if found := ring.drain():
            self._log.add(Segments.joined(found))
        self._drained_ns = now_ns()
        self.report.segments, self.report.dropped, self.report.merged = ring.packets, ring.drops, ring.merged

    def _better(self, raw: RawStream) -> RawStream | None:
        """With the stamps of its segments; None when they are not all there."""
        if not raw.data:  # nothing came, and so nothing was stamped worse than it could be
            return replace(raw, head=raw.head._replace(stamp=Stamp.PACKET))
        return raw if raw.head.stamp is Stamp.USER else self._log.restamp(raw)

    def _settled(self, raw: RawStream, better: RawStream | None) -> RawStream:
        self._log.forget(raw)
        if raw.data:
            self.report.restamped += better is not None and better is not raw
            self.report.fell_back += better is None or better is raw
        return better or raw


def _said(skipped: Skipped) -> str:
    return f"{skipped.reason} ({skipped.how_to_get_it})"
