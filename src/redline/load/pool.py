"""Connections that wait for another request."""

from __future__ import annotations

from collections.abc import Callable

from redline.load.wire import Connection, State

IDLE_REUSE_NS = 3_000_000_000
"""Servers close idle connections after 5 s (uvicorn) or so; do not race them."""


class IdlePool:
    """The one that was used last is used first, so that the others may grow old and be closed."""

    def __init__(self, drop: Callable[[Connection], None]) -> None:
        self._idle: list[Connection] = []
        self._drop = drop

    def __len__(self) -> int:
        return len(self._idle)

    def put(self, conn: Connection, now_ns: int) -> None:
        conn.state, conn.idle_since_ns = State.IDLE, now_ns
        self._idle.append(conn)

    def take(self, now_ns: int) -> Connection | None:
        """A connection that can be used again; None when there is none."""
        while self._idle:
            conn = self._idle.pop()
            if conn.state is State.IDLE:
                if now_ns - conn.idle_since_ns < IDLE_REUSE_NS:
                    return conn
                self._drop(conn)
        return None
