"""TLS over memory buffers, so that the socket, and with it the kernel's stamps, stays ours.

What arrives is opened record by record: a client that was frozen reads many records at once, and each of them still
knows at which byte of the wire it was whole.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

_HEADER = 5  # type, version (2), length (2)
_READ = 65536


class Tls:
    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._part = b""
        self.received = 0
        """Bytes of whole records that came over the wire so far, the handshake's included."""
        self.goodbye = False
        """The server said that it sends no more."""

    def _records(self, data: bytes) -> Iterator[bytes]:
        """Every record that is whole by now."""
        buffer, at = self._part + data, 0
        while len(buffer) - at >= _HEADER:
            end = at + _HEADER + int.from_bytes(buffer[at + 3 : at + 5], "big")
            if end > len(buffer):
                break
            self._part = buffer[end:]
            self.received += end - at
            yield buffer[at:end]
            at = end
        self._part = buffer[at:]

    def shake_hands(self, data: bytes) -> bool:
        """Takes what came (nothing, to begin); True when the handshake is done. ssl.SSLError when it failed."""
        for record in self._records(data):
            self._incoming.write(record)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def open(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """The plain text of each record that is whole by now, with `received` at its end. ssl.SSLError when broken."""
        if self._incoming.pending:
            yield from self._plain()
        for record in self._records(data):
            self._incoming.write(record)
            yield from self._plain()

    def _plain(self) -> Iterator[tuple[bytes, int]]:
        parts = []
        try:
            while piece := self._object.read(_READ):
                parts.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.goodbye = True
        if parts:
            yield b"".join(parts), self.received

    def seal(self, data: bytes) -> None:
        self._object.write(data)

    def to_send(self) -> bytes:
        return self._outgoing.read()
