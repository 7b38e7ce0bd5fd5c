"""A server that sends exactly what a script says: for accidents too odd for the paced server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from redline.engines.endpoint import Dialect, Endpoint

RESET = "reset"
HANG = "hang"
Step = bytes | float | str
"""Bytes to send, seconds to wait, or one of the ends above; a script that runs out keeps the connection."""
Script = Callable[[int], Iterable[Step]]


class ScriptedServer:
    """Answers request n (from 0, in the order of arrival) with `script(n)`."""

    def __init__(self, script: Script, *, nodelay: bool = True) -> None:
        self._script = script
        self._nodelay = nodelay
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.requests = 0

    @property
    def endpoint(self) -> Endpoint:
        port = self._listener.getsockname()[1]
        return Endpoint(f"http://127.0.0.1:{port}/v1", "scripted", "scripted", "1", dialect=Dialect())

    def __enter__(self) -> ScriptedServer:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, body: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=body, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(0.1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self._nodelay)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while self._take_request(sock):
                with self._lock:
                    number, self.requests = self.requests, self.requests + 1
                for step in self._script(number):
                    if self._over.is_set():
                        return
                    if isinstance(step, bytes):
                        sock.sendall(step)
                    elif step == RESET:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    elif step == HANG:
                        self._over.wait(60)
                    else:
                        time.sleep(float(step))

    def _take_request(self, sock: socket.socket) -> bool:
        """False when the client is gone."""
        data = b""
        while not self._over.is_set():
            try:
                piece = sock.recv(65536)
            except TimeoutError:
                continue
            if not piece:
                return False
            data += piece
            head, found, body = data.partition(b"\r\n\r\n")
            if found:
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                if len(body) >= size:
                    return True
        return False
