"""Connections without a request: kept for the next one, and opened in advance."""

from __future__ import annotations

from collections.abc import Callable

from redline.load.wire import Connection, State

IDLE_REUSE_NS = 3_000_000_000  # servers close idle connections after 5 s (uvicorn) or so; do not race them
PRECONNECT_NS = 300_000  # per connection: about what opening one takes, on a slow box
_LEAD_NS_MAX = 2_000_000_000  # the first ones must still be fit for use when the phase begins
_AT_ONCE = 128  # connections under way at one time: a full backlog costs a second per attempt


def lead_ns(connections: int) -> int:
    """How long before a phase its connections are opened."""
    return min(PRECONNECT_NS * connections, _LEAD_NS_MAX)


class Idle:
    """The idle connections of one loop, the last used first."""

    def __init__(self, drop: Callable[[Connection], None], open_one: Callable[[], None]) -> None:
        self._drop = drop
        self._open_one = open_one
        self._free: list[Connection] = []
        self._wanted = 0

    def put(self, conn: Connection, now_ns: int) -> None:
        conn.state, conn.idle_since_ns = State.IDLE, now_ns
        self._free.append(conn)

    def take(self, now_ns: int) -> Connection | None:
        """One that the server will not have closed yet."""
        while self._free:
            conn = self._free.pop()
            if conn.state is State.IDLE:
                if now_ns - conn.idle_since_ns < IDLE_REUSE_NS:
                    return conn
                self._drop(conn)
        return None

    def open_up_to(self, count: int) -> int:
        """Open connections in advance until there are `count`; how many are missing now."""
        missing = max(count - len(self._free), 0)
        self._wanted = max(missing - _AT_ONCE, 0)
        for _ in range(min(missing, _AT_ONCE)):
            self._open_one()
        return missing

    def connected(self, conn: Connection) -> None:
        """One that was opened in advance is there: the next may be tried."""
        self.put(conn, conn.connected_ns)
        if self._wanted:
            self._wanted -= 1
            self._open_one()

    def open_no_more(self) -> None:
        self._wanted = 0
