"""Clients that do not behave: some hang up in the middle of an answer, some read it slowly.

The loop asks about every request that goes out; ordinary ones cost a look at two zeros.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from redline.clock import now_ns
from redline.load.frames import End, Outgoing
from redline.load.timer import Agenda
from redline.load.wire import Connection, State
from redline.units import NS_PER_S

Pieces = tuple[list[bytes], list[int], list[int], list[int]]

_BUFFER_BYTES = 2048
_LOOKS_PER_S = 20
_READ_MOST = 4096
_IN, _PAUSED = select.EPOLLIN, select.EPOLLERR  # errors are told anyway: a mask that is not 0 and asks for nothing

Listen = Callable[[Connection, int], None]
Finish = Callable[[Connection, End], None]


class Manners:
    """`listen` sets what a connection waits for, `finish` ends the request on it: both are the loop's own."""

    def __init__(self, agenda: Agenda, listen: Listen, finish: Finish) -> None:
        self._agenda = agenda
        self._listen = listen
        self._finish = finish
        self._cancel_after: dict[int, int] = {}
        self._slow: dict[int, int] = {}

    def reuses(self, body: Outgoing) -> bool:
        """Whether this request may go over a connection that is open already; a slow reader has one of its own."""
        if body.cancel_after_ns:
            self._cancel_after[body.number] = body.cancel_after_ns
        if body.read_bytes_per_s:
            self._slow[body.number] = body.read_bytes_per_s
            return False
        return True

    def prepare(self, sock: socket.socket, number: int) -> socket.socket:
        """Before it connects: a small receive buffer, so that the server feels how slow the reader is."""
        if number in self._slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        return sock

    def sent(self, conn: Connection) -> None:
        """The request is on its way."""
        after = self._cancel_after.get(conn.index)
        if after:
            self._agenda.at(conn.sent_ns + after, self._hang_up, (conn, conn.index))
        rate = self._slow.get(conn.index)
        if rate:
            conn.recvmsg = self._paced(conn, conn.sock, rate)  # type: ignore[assignment]

    def keeps(self, conn: Connection) -> bool:
        """Whether the connection may serve another request, now that this one is over."""
        if not self.slows(conn):
            return True
        conn.recvmsg = conn.sock.recvmsg  # the paced one refers to the connection, and nobody collects cycles here
        return False

    def slows(self, conn: Connection) -> bool:
        """Whether the answer on this connection is read slowly."""
        return conn.index in self._slow

    def clear(self) -> None:
        self._cancel_after.clear()
        self._slow.clear()

    def _hang_up(self, what: tuple[Connection, int]) -> None:
        conn, number = what
        if conn.index == number and conn.state in (State.SENDING, State.RECEIVING):
            self._finish(conn, End.ABANDONED)

    def _paced(self, conn: Connection, sock: socket.socket, rate: int) -> Callable[[int, int], Any]:
        """recvmsg that takes little, and lets the connection rest for as long as that much should have taken."""
        most = max(1, min(_READ_MOST, rate // _LOOKS_PER_S))

        def recvmsg(_: int, ancillary: int) -> Any:
            found = sock.recvmsg(most, ancillary)
            if found[0]:
                self._listen(conn, _PAUSED)
                self._agenda.at(now_ns() + len(found[0]) * NS_PER_S // rate, self._resume, (conn, conn.index))
            return found

        return recvmsg

    def _resume(self, what: tuple[Connection, int]) -> None:
        conn, number = what
        if conn.index == number and conn.state is State.RECEIVING:
            self._listen(conn, _IN)
