"""Messages between the server's process and the engine's: pickles with their length before them, over a socket.

Both ends are one program, started by one another; nothing else can connect.
"""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Iterator
from typing import Any

BUFFER = 8 << 20
"""Bytes on their way: a server that is busy for a moment must not hold up the engine."""
CHUNK = 1 << 18


class Wire:
    """One direction of messages each way; `send` from any thread, receiving from one."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._sending = threading.Lock()
        self._held = bytearray()

    def send(self, *message: Any) -> None:
        """OSError when the other process is gone."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self.end.sendall(len(data).to_bytes(4, "little") + data)

    def messages(self) -> Iterator[tuple[Any, ...]]:
        """Waits for them; ends with the other process."""
        while data := self._received():
            self._held += data
            yield from self._whole()

    def ready(self) -> list[tuple[Any, ...]] | None:
        """Those that are there; None when there will be no more. For a socket that does not block."""
        try:
            data = self._received()
        except (BlockingIOError, InterruptedError):
            return []
        self._held += data
        return list(self._whole()) if data else None

    def _received(self) -> bytes:
        try:
            return self.end.recv(CHUNK)
        except ConnectionError:
            return b""

    def _whole(self) -> Iterator[tuple[Any, ...]]:
        held = self._held
        while len(held) >= 4:
            end = 4 + int.from_bytes(held[:4], "little")
            if len(held) < end:
                return
            data = bytes(held[4:end])
            del held[:end]  # before it is given: whoever takes it may not come back for more
            message: tuple[Any, ...] = pickle.loads(data)
            yield message
