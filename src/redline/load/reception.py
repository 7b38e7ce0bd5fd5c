"""What comes in: pieces of answers with their stamps, kept where they belong, and a look whether an answer is over."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Protocol

from redline.clock import now_ns
from redline.load.frames import End, Stamp
from redline.load.linger import ROUND_TRIP_NS, Linger
from redline.load.receive import BROKEN, CLOSED, PIECE, Interpreted, told
from redline.load.stamps import StampClock
from redline.load.tls import Tls
from redline.load.wire import ANCILLARY_BYTES, LAST_CHUNK, READ_BYTES, Connection, Framing, State

_CHUNKED, _RECEIVING = Framing.CHUNKED, State.RECEIVING  # an enum's members cost a search each time


class Endings(Protocol):
    """What becomes of a request when nothing more comes."""

    def finish(self, conn: Connection, end: End, error: str = "") -> None: ...

    def broken(self, conn: Connection, error: OSError) -> None: ...


class Reception:
    """`slow` tells of a connection that is read slowly on purpose, and therefore by nobody else."""

    def __init__(
        self, clock: StampClock, linger: Linger, poller: Interpreted, slow: Callable[[Connection], bool], then: Endings
    ) -> None:
        self._clock, self._linger, self._poller, self._slow, self._then = clock, linger, poller, slow, then
        poller.set_offset(clock.offset_ns)

    def reread(self) -> None:
        """The distance between the clocks, now and then."""
        self._clock.reread()
        self._poller.set_offset(self._clock.offset_ns)
        self._linger.answers += self._poller.take_quick()

    def read(self, conn: Connection) -> None:
        """What this connection has to read."""
        self._poller.drain(conn)
        try:
            data, ancillary, _, _ = conn.recvmsg(READ_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._then.broken(conn, error)
            return
        seen = now_ns()
        if not data:
            self._hung_up(conn)
            return
        self._took(conn, data, self._clock.of(ancillary[0][2], conn.sent_ns, seen) if ancillary else seen, seen)

    def told(self, conn: Connection, word: int) -> None:
        """Something about a connection that the poller reads by itself."""
        what, code = told(word)
        piece = self._poller.piece() if what == PIECE else None
        self._poller.drain(conn)
        if conn.state is not _RECEIVING:
            return  # over since
        if piece is not None:
            data, realtime_ns, seen = piece
            stamp = self._clock.monotonic(realtime_ns, conn.sent_ns, seen) if realtime_ns else seen
            self._poller.set_offset(self._clock.offset_ns)
            self._took(conn, data, stamp, seen)
        elif what == CLOSED:
            self._hung_up(conn)
        elif what == BROKEN:
            self._then.broken(conn, OSError(code, os.strerror(code)))
        elif (end := conn.is_over(conn.data[-1])) is not None:
            self._then.finish(conn, end)

    def _took(self, conn: Connection, data: bytes, stamp: int, seen: int) -> None:
        if stamp == seen:
            conn.stamp = Stamp.USER
        if self._linger.ns and conn.seen and stamp - conn.seen[-1] < ROUND_TRIP_NS:
            self._linger.answers += 1
        if conn.tls is None:
            self._keep(conn, data, stamp, seen)
        else:
            self._open_sealed(conn, conn.tls, data, stamp, seen)

    def _keep(self, conn: Connection, data: bytes, stamp: int, seen: int) -> bool:
        """Keep a piece of an answer; True when the answer is over with it."""
        conn.size += len(data)
        conn.data.append(data)
        conn.stamps.append(stamp)
        conn.seen.append(seen)
        if conn.framing is _CHUNKED and len(data) >= 5 and not data.endswith(LAST_CHUNK):
            return False
        end = conn.is_over(data)
        if end is not None:
            self._then.finish(conn, end)
        elif conn.framing is _CHUNKED and conn.state is _RECEIVING and conn.tls is None and not self._slow(conn):
            self._poller.entrust(conn)
        return end is not None

    def _open_sealed(self, conn: Connection, tls: Tls, data: bytes, stamp: int, seen: int) -> None:
        try:
            for plain, received in tls.open(data):
                conn.wire.append(received - conn.wire_from)
                conn.received = received
                if self._keep(conn, plain, stamp, seen):
                    return
        except ssl.SSLError as error:
            self._then.finish(conn, End.RESET, f"TLS: {error}")
            return
        if tls.goodbye:
            conn.keep_alive = False
            self._hung_up(conn)

    def _hung_up(self, conn: Connection) -> None:
        """The server closed its side."""
        if conn.data:
            self._then.finish(conn, End.CLOSED)
        else:
            self._then.broken(conn, ConnectionResetError(0, "the server closed the connection before it answered"))
