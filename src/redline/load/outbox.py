"""Frames on their way from a worker to redline: never blocks, bounded in memory, loses nothing.

What the parent does not take at once waits in memory up to a limit, and beyond it in an unlinked temporary file that
vanishes with the process. Order is kept: memory first, then the file, then (only when the disk is full) memory again.
"""

from __future__ import annotations

import socket
import tempfile
from collections import deque
from typing import IO

IN_MEMORY_MAX = 64 << 20
_READ_BACK = 4 << 20


class Outbox:
    def __init__(self, sock: socket.socket, in_memory_max: int = IN_MEMORY_MAX) -> None:
        self._sock = sock
        self._limit = in_memory_max
        self._head: deque[memoryview] = deque()
        self._tail: deque[memoryview] = deque()
        self._in_memory = 0
        self._spill: IO[bytes] | None = None
        self._spill_read = self._spill_written = 0
        self.waiting_max = 0
        self.spilled = 0

    @property
    def waiting(self) -> int:
        """Bytes not yet taken by the parent."""
        return self._in_memory + self._spill_written - self._spill_read

    def put(self, frame: bytes) -> None:
        """Queue a frame, sending what goes without waiting. OSError when the parent is gone."""
        on_disk = self._spill_written > self._spill_read
        crowded = on_disk or self._in_memory + len(frame) > self._limit
        if not crowded or self._tail or not self._to_disk(frame):
            (self._tail if on_disk else self._head).append(memoryview(frame))
            self._in_memory += len(frame)
        self.flush()
        self.waiting_max = max(self.waiting_max, self.waiting)

    def flush(self) -> None:
        """Send until everything is gone or the socket is full."""
        while self._head or self._refill():
            piece = self._head[0]
            try:
                sent = self._sock.send(piece)
            except BlockingIOError:
                return
            self._in_memory -= sent
            if sent < len(piece):
                self._head[0] = piece[sent:]
                return
            self._head.popleft()

    def close(self) -> None:
        if self._spill is not None:
            self._spill.close()

    def _to_disk(self, frame: bytes) -> bool:
        """False when there is no room."""
        try:
            if self._spill is None:
                self._spill = tempfile.TemporaryFile(prefix="redline-load-", buffering=0)  # noqa: SIM115
            self._spill.seek(self._spill_written)
            if self._spill.write(frame) != len(frame):
                return False
        except OSError:
            return False
        self._spill_written += len(frame)
        self.spilled += len(frame)
        return True

    def _refill(self) -> bool:
        """Moves what comes next into the head: from the file, else the tail. False when nothing is left."""
        left = self._spill_written - self._spill_read
        if self._spill is None or left == 0:
            self._head, self._tail = self._tail, self._head
            return bool(self._head)
        self._spill.seek(self._spill_read)
        piece = self._spill.read(min(_READ_BACK, left))
        self._spill_read += len(piece)
        if self._spill_read == self._spill_written:
            self._spill.truncate(0)
            self._spill_read = self._spill_written = 0
        self._head.append(memoryview(piece))
        self._in_memory += len(piece)
        return True
