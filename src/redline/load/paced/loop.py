"""The paced server's loop: one thread, epoll, a heap of absolute deadlines, and a log of what really left when.

The arrival of a request is the kernel's receive stamp of its last byte; a content chunk's true send time lies between
the two clock reads around its send(2). Both are monotonic ns, so a client on the same machine can be held to them.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import struct
import time
from array import array
from collections.abc import MutableSequence
from dataclasses import dataclass, field, replace
from typing import Any

from redline.clock import realtime_offset
from redline.load.paced.asking import APIS, asked_of
from redline.load.paced.pace import Asked, Faults, Pace, Step, ToyTokenizer, head, whole
from redline.load.paced.script import script
from redline.load.paced.slots import Slots
from redline.load.paced.world import World
from redline.load.timer import Timer

_SO_TIMESTAMPNS = 35
_SCRIPTS_MAX = 256
_now = time.monotonic_ns


@dataclass
class Truth:
    """One request as it really was. `before_ns[i]` and `after_ns[i]` enclose the send of content chunk i."""

    id: str
    number: int
    arrived_ns: int
    prompt_tokens: int
    fault: str
    connection: int
    before_ns: MutableSequence[int] = field(default_factory=lambda: array("q"))
    after_ns: MutableSequence[int] = field(default_factory=lambda: array("q"))
    tokens: MutableSequence[int] = field(default_factory=lambda: array("i"))
    finished_ns: int = 0
    late_ns: int = 0
    """The worst lateness of any step against its own schedule."""


def _plain(truth: Truth) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, array) else value for name, value in vars(truth).items()}


class _Conn:
    __slots__ = ("arrived_ns", "backlog", "end", "inbox", "number", "position", "sock", "start_ns", "steps", "truth")

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.inbox = bytearray()
        self.backlog = bytearray()
        self.arrived_ns = 0
        self.steps: list[Step] = []
        self.position = 0
        self.start_ns = 0
        self.end = "keep"
        self.truth: Truth | None = None


class PacedLoop:
    """Listens on 127.0.0.1; `run()` serves until `stop()` is called from a signal handler."""

    def __init__(self, pace: Pace, port: int = 0) -> None:
        self.pace = pace
        self.tokenizer = ToyTokenizer()
        self.truths: list[Truth] = []
        self._scripts: dict[tuple[Asked, str], tuple[list[Step], str]] = {}
        self._faults = Faults(pace.faults)
        self._slots: Slots[_Conn] = Slots(pace.slots)
        self._world = World(pace)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._timer = Timer()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        self._conns: dict[int, _Conn] = {}
        self._ghosts: set[_Conn] = set()
        self._due: list[tuple[int, int, _Conn]] = []
        self._sequence = 0
        self._answers = 0
        self._accepted = 0
        self._stopped = False
        self._offset = realtime_offset()
        self._parent = -1

    def stop(self) -> None:
        self._stopped = True

    def watch_parent(self, fd: int) -> None:
        """Stop when `fd`, the read end of the parent's pipe, reports its end."""
        self._parent = fd
        self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        refresh = _now()
        while not self._stopped:
            now = _now()
            if now - refresh > 100_000_000:
                self._offset, refresh = realtime_offset(3), now
            budget = 256
            while self._due and self._due[0][0] <= now and budget:
                now = self._play(heapq.heappop(self._due)[2])
                budget -= 1
            ready = self._due and self._due[0][0] <= now
            if self._due and not ready:
                self._timer.arm(self._due[0][0])
            for fd, _ in self._epoll.poll(0 if ready else 0.5):
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._parent:
                    self._stopped = True
                elif fd in self._conns:
                    self._readable(self._conns[fd])

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._accepted += 1
            self._conns[sock.fileno()] = _Conn(sock, self._accepted)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _drop(self, conn: _Conn, reset: bool = False) -> None:
        fd = conn.sock.fileno()
        if fd < 0:
            return
        if reset:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        del self._conns[fd]
        if conn.steps and self.pace.outlives:
            self._ghosts.add(conn)
        else:
            conn.steps = []
            self._leave(conn)
        conn.sock.close()

    def _readable(self, conn: _Conn) -> None:
        if conn.backlog:
            self._flush(conn)
        try:
            data, ancillary, _, _ = conn.sock.recvmsg(262144, 64)
        except BlockingIOError:
            return
        except OSError:
            self._drop(conn)
            return
        if not data:
            self._drop(conn)
            return
        conn.arrived_ns = _now()
        for _, kind, raw in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanos = struct.unpack("qq", raw)
                conn.arrived_ns = self._offset.to_monotonic(seconds * 1_000_000_000 + nanos)
        conn.inbox += data
        self._request(conn)

    def _request(self, conn: _Conn) -> None:
        end = conn.inbox.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = bytes(conn.inbox[:end]).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        size = int(headers.get("content-length", 0))
        if len(conn.inbox) < end + 4 + size:
            return
        body = bytes(conn.inbox[end + 4 : end + 4 + size])
        del conn.inbox[: end + 4 + size]
        key = self.pace.api_key
        if key and headers.get("authorization") != f"Bearer {key}":
            sent = headers.get("authorization", "")
            self._say(conn, 401, {"error": {"message": f"wrong API key: {sent}", "code": 401}})
            return
        try:
            self._route(conn, method, path.partition("?")[0], headers, json.loads(body) if body else {})
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self._say(conn, 400, {"error": {"message": f"bad request: {error!r}", "code": 400}})

    def _say(self, conn: _Conn, status: int, body: dict[str, Any]) -> None:
        self._emit(conn, whole(status, body, "OK" if status == 200 else "Error"))

    def _route(self, conn: _Conn, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        if path in APIS and method == "POST":
            self._answer(conn, APIS[path], headers, body)
        elif path == "/health":
            self._say(conn, 200, {})
        elif path == "/v1/models":
            model = {"id": self.pace.model, "object": "model", "max_model_len": self.pace.max_model_len or 1_000_000}
            self._say(conn, 200, {"object": "list", "data": [model]})
        elif path == "/_truth":
            truths = [_plain(truth) for truth in self.truths]
            if method == "DELETE":
                self._world.forget(self.truths)
                self.truths = []
            self._say(conn, 200, {"requests": truths})
        elif path == "/metrics" and self.pace.metrics:
            page = self._world.page(self.truths, self._live()).encode()
            self._emit(conn, head(200, "text/plain; version=0.0.4", "length", len(page)) + page)
        elif path == "/tokenize" and self.pace.tokenizer:
            special = bool(body.get("add_special_tokens", "messages" not in body))
            text = self.tokenizer.render(body["messages"]) if "messages" in body else str(body["prompt"])
            ids = self.tokenizer.encode(text, special or "messages" in body)
            self._say(
                conn, 200, {"count": len(ids), "max_model_len": self.pace.max_model_len or 1000000, "tokens": ids}
            )
        elif path == "/detokenize" and self.pace.tokenizer:
            self._say(conn, 200, {"prompt": self.tokenizer.decode(body["tokens"])})
        else:
            self._say(conn, 404, {"error": {"message": f"no such path: {path}", "code": 404}})

    def _answer(self, conn: _Conn, api: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        pace = self.pace
        if body.get("model") != pace.model:
            self._say(conn, 404, {"error": {"message": f"no such model: {body.get('model')}", "code": 404}})
            return
        asked = asked_of(api, body, self.tokenizer, pace)
        count, tokens = asked.prompt_tokens, asked.tokens
        if pace.max_model_len and count + tokens > pace.max_model_len:
            text = f"This model's maximum context length is {pace.max_model_len} tokens, asked {count + tokens}"
            self._say(conn, 400, {"error": {"message": text, "code": 400}})
            return
        asked, pace = self._world.shape(asked, self.tokenizer, conn.arrived_ns, self._live)
        self._answers += 1
        fault = self._faults.next()
        if pace.die_after and self._answers >= pace.die_after:
            fault = "die"
        name = headers.get("x-request-id", "")
        truth = Truth(name, self._answers, conn.arrived_ns, count, fault, conn.number)
        self.truths.append(truth)
        conn.steps, conn.end = self._script(pace, asked, fault)
        conn.position, conn.start_ns, conn.truth = 0, conn.arrived_ns, truth
        if not conn.steps:
            self._drop(conn, reset=True)
            return
        if self._slots.enter(conn):
            self._push(conn)

    def _script(self, pace: Pace, asked: Asked, fault: str) -> tuple[list[Step], str]:
        """Requests that ask for the same share one script: making it takes longer than sending a tenth of it."""
        if pace is not self.pace:
            return script(pace, asked, fault)
        key = (replace(asked, prompt=""), fault)  # no script looks at the prompt itself
        found = self._scripts.get(key)
        if found is None:
            if len(self._scripts) >= _SCRIPTS_MAX:
                self._scripts.clear()
            found = self._scripts[key] = script(pace, asked, fault)
        return found

    def _live(self) -> int:
        """Requests in flight."""
        return sum(bool(conn.steps) for conn in self._conns.values()) + len(self._ghosts)

    def _push(self, conn: _Conn) -> None:
        self._sequence += 1
        heapq.heappush(self._due, (conn.start_ns + conn.steps[conn.position][0], self._sequence, conn))

    def _play(self, conn: _Conn) -> int:
        """Sends every step of the connection that is due; the time then. The clock is read once per step."""
        truth, steps, position, start_ns = conn.truth, conn.steps, conn.position, conn.start_ns
        assert truth is not None
        before = now = _now()
        while position < len(steps):
            offset, data, tokens = steps[position]
            late = now - start_ns - offset
            if late < 0:
                conn.position = position
                self._push(conn)
                return now
            before = now
            self._emit(conn, data)
            now = _now()
            if tokens:
                truth.before_ns.append(before)
                truth.after_ns.append(now)
                truth.tokens.append(tokens)
            if late > truth.late_ns:
                truth.late_ns = late
            if conn.steps is not steps:  # the client is gone
                return now
            position += 1
        if steps:
            truth.finished_ns = before
            self._finish(conn)
        return now

    def _leave(self, conn: _Conn) -> None:
        following = self._slots.leave(conn)
        if following is not None:
            following.start_ns = _now()
            self._push(following)

    def _finish(self, conn: _Conn) -> None:
        conn.steps = []
        self._leave(conn)
        if conn.end == "die":
            os._exit(1)
        if conn in self._ghosts:
            self._ghosts.discard(conn)
            return
        if conn.end in ("reset", "close"):
            self._drop(conn, reset=conn.end == "reset")

    def _emit(self, conn: _Conn, data: bytes) -> None:
        if conn in self._ghosts:
            return
        if conn.backlog:
            conn.backlog += data
            return
        try:
            sent = conn.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(conn)
            return
        if sent < len(data):
            conn.backlog += data[sent:]
            self._epoll.modify(conn.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, conn: _Conn) -> None:
        try:
            sent = conn.sock.send(conn.backlog)
        except BlockingIOError:
            return
        except OSError:
            self._drop(conn)
            return
        del conn.backlog[:sent]
        if not conn.backlog:
            self._epoll.modify(conn.sock.fileno(), select.EPOLLIN)
