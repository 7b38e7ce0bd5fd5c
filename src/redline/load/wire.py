"""One connection to the server: non-blocking socket, kernel receive stamps, and just enough HTTP to see the end.

While an answer streams, only (bytes, stamp) pieces are kept. Whether it is over is asked of httptools, and only when
a piece looks like the last one; everything else about the answer is found out later, by whoever parses it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import httptools

from redline.load.frames import End, Stamp, StreamHead, Target
from redline.load.stamps import SO_TIMESTAMPNS
from redline.load.tls import Tls

ANCILLARY_BYTES = 64
READ_BYTES = 65536
HEAD_BYTES_MAX = 256 << 10
_DRIBBLE = 64
_SUSPICIOUS_NS = 100_000_000

LAST_CHUNK = b"0\r\n\r\n"

_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[^\r\n]*close", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d\d\d)[ \r]")


def meaning(code: int | None) -> str:
    """An errno in words, with the remedy where it is ours."""
    known = {
        errno.EMFILE: "too many open files (raise ulimit -n)",
        errno.ENFILE: "too many open files on this box (sysctl fs.file-max)",
        errno.EADDRNOTAVAIL: "no free local port left (sysctl net.ipv4.ip_local_port_range)",
    }
    return known.get(code or 0) or os.strerror(code or 0).lower()


def failed_to_connect(code: int | None) -> End:
    """Whose fault it is that there is no connection."""
    ours = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)
    return End.LOCAL if code in ours else End.CONNECT


def open_socket(target: Target) -> socket.socket:
    """A non-blocking socket that will tell when the kernel received what it gives us."""
    sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if target.timestamps:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock


class State(IntEnum):
    CONNECTING = 0
    HANDSHAKE = 1
    SENDING = 2
    RECEIVING = 3
    IDLE = 4
    DEAD = 5


class Framing(IntEnum):
    """How the end of this answer is marked."""

    UNKNOWN = 0  # the head is not whole yet
    CHUNKED = 1
    LENGTH = 2
    CLOSE = 3


class _Ends:
    """httptools protocol that only counts messages, interim ones included: begun, and ended."""

    def __init__(self) -> None:
        self.begun = self.count = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.count += 1


class Inbox(ctypes.Structure):
    """What was read of an answer and not taken yet; `receive.c` fills it. Times are monotonic ns, sizes bytes."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("sent_ns", "last_ns", "count", "size", "unstamped")),
        *((name, ctypes.c_void_p) for name in ("data", "stamps", "seen", "lengths")),
        *((name, ctypes.c_int64) for name in ("room", "places")),
        ("live", ctypes.c_int32),
    ]


class Connection:
    """State of one socket and of the request on it. The loop drives it; nothing in here blocks.

    Nothing in here refers back to itself either: the worker runs without garbage collection.
    """

    __slots__ = (
        "begun_ns",
        "client",
        "connect_ns",
        "connected_ns",
        "data",
        "ends",
        "fd",
        "fed",
        "framing",
        "head_end",
        "idle_gap_ns",
        "idle_since_ns",
        "inbox",
        "index",
        "intended_ns",
        "interim",
        "keep_alive",
        "mask",
        "need",
        "outgoing",
        "parser",
        "port",
        "received",
        "recvmsg",
        "request",
        "retried",
        "reused",
        "seen",
        "sent_ns",
        "size",
        "sock",
        "stamp",
        "stamps",
        "state",
        "status",
        "tls",
        "whole_request",
        "wire",
        "wire_from",
    )

    def __init__(self, sock: socket.socket, client: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recvmsg = sock.recvmsg
        self.client = client
        self.state = State.CONNECTING
        self.mask = 0
        self.tls: Tls | None = None
        self.inbox: Inbox | None = None
        self.reused = False
        self.idle_since_ns = 0
        self.connect_ns = self.connected_ns = 0
        self.retried = 0
        self.idle_gap_ns = 0
        self.port = self.received = 0
        self.take(-1, b"", 0, 0)

    def take(self, index: int, request: bytes, intended_ns: int, now_ns: int) -> None:
        """A new request begins on this connection."""
        self.begun_ns = now_ns
        self.index = index
        self.request = request
        self.intended_ns = intended_ns
        self.sent_ns = 0
        self.whole_request = request
        self.outgoing = memoryview(request)
        self.forget()
        self.head_end = self.need = self.fed = self.status = 0
        self.framing = Framing.UNKNOWN
        self.keep_alive = True
        self.stamp = Stamp.KERNEL
        self.wire_from = self.received
        self.parser: Any = None
        self.interim = 0
        self.ends = _Ends()

    def forget(self) -> None:
        """What came was handed on."""
        self.data: list[bytes] = []
        self.stamps: list[int] = []
        self.seen: list[int] = []
        self.wire: list[int] = []
        self.size = 0

    def reuse(self, client: int, now_ns: int) -> None:
        """This idle connection gets another request, perhaps of another client."""
        self.client, self.reused, self.retried = client, True, 0
        self.idle_gap_ns = now_ns - self.idle_since_ns

    def push(self) -> bool:
        """Hand bytes to the kernel; True when the last one went. `sent_ns` is set by the caller before it calls."""
        if self.tls is not None and self.request:
            self.tls.seal(self.request)
            self.request = b""
            self.outgoing = memoryview(self.tls.to_send())
        return self.push_raw()

    def push_raw(self) -> bool:
        while self.outgoing:
            try:
                sent = self.sock.send(self.outgoing)
            except BlockingIOError:
                return False
            self.outgoing = self.outgoing[sent:]
        return True

    def shake_hands(self, *, readable: bool) -> bool:
        """One step of the TLS handshake; True when it is done. OSError (ssl.SSLError is one) when it failed."""
        assert self.tls is not None
        data = self.sock.recv(READ_BYTES) if readable else b""
        if readable and not data:
            raise ConnectionResetError(0, "closed by the server")
        done = self.tls.shake_hands(data)
        self.outgoing = memoryview(self.tls.to_send())
        self.push_raw()
        if done:
            self.outgoing = memoryview(self.request)
            self.received = self.wire_from = self.tls.received
        return done

    def stays_idle(self) -> bool:
        """Take what came without a request: whether that was TLS's own, such as session tickets (RFC 8446, 4.6.1)."""
        if self.tls is None:
            return False
        try:
            data = self.sock.recv(READ_BYTES)
            unasked = any(True for _ in self.tls.open(data))
        except BlockingIOError:
            return True
        except OSError:  # ssl.SSLError is one
            return False
        self.received = self.tls.received
        return bool(data) and not unasked and not self.tls.goodbye

    def overdue(self, now_ns: int, target: Target, drain: Callable[[Connection], None]) -> End | None:
        """Whether this request has to end now: out of time, silent for too long, or over without looking like it.

        `drain` empties the inbox.
        """
        size, last_ns, box = self.size, self.seen[-1] if self.seen else max(self.begun_ns, self.sent_ns), self.inbox
        if box is not None and box.count:
            size, last_ns = size + box.size, box.last_ns
        silent = now_ns - last_ns
        if now_ns - self.begun_ns > target.timeout_ns:
            return End.SLOW
        if silent > target.idle_ns:
            return End.IDLE
        if size > target.answer_bytes_max:
            return End.BAD
        if self.framing is Framing.CHUNKED and silent > _SUSPICIOUS_NS:
            drain(self)
            return self.ask() if self.fed < len(self.data) else None  # there may be trailers after the last chunk
        return None

    def judge_head(self) -> End | None:
        """Find out how the answer is framed, once its head is there. BAD when it is no HTTP."""
        raw = self.data[0] if len(self.data) == 1 else b"".join(self.data)
        while True:
            status = _STATUS.match(raw, self.head_end)
            end = raw.find(b"\r\n\r\n", self.head_end)
            if status is None and (end >= 0 or len(raw) - self.head_end >= 13):
                return End.BAD
            if end < 0 or status is None:
                return End.BAD if len(raw) - self.head_end > HEAD_BYTES_MAX else None
            if int(status[2]) >= 200:
                break
            self.head_end = end + 4
            self.interim += 1  # the real answer follows
        head = raw[self.head_end : end + 2]
        self.head_end = end + 4
        self.keep_alive = status[1] == b"1" and not _CLOSE.search(head)
        self.status = int(status[2])
        length = _LENGTH.search(head)
        if self.status in (204, 304):
            self.framing, self.need = Framing.LENGTH, self.head_end
        elif _CHUNKED.search(head):
            self.framing = Framing.CHUNKED
        elif length:
            self.framing, self.need = Framing.LENGTH, self.head_end + int(length[1])
        else:
            self.framing, self.keep_alive = Framing.CLOSE, False
        return None

    def is_over(self, data: bytes) -> End | None:
        """After a piece that may be the last: COMPLETE, BAD or None for not yet."""
        if self.framing is Framing.UNKNOWN:
            if len(self.data) > _DRIBBLE and b"\n" not in data and self.size <= HEAD_BYTES_MAX:
                return None  # a head that comes byte by byte is looked at line by line, or it would cost its square
            bad = self.judge_head()
            if bad is not None or self.framing is Framing.UNKNOWN:
                return bad
        if self.framing is Framing.CHUNKED:
            ends = data.endswith(LAST_CHUNK) or (len(data) < len(LAST_CHUNK) and self._tail().endswith(LAST_CHUNK))
            return self.ask() if ends else None
        if self.framing is Framing.LENGTH and self.size >= self.need:
            self.keep_alive = self.keep_alive and self.size == self.need
            return End.COMPLETE
        return None

    def _tail(self) -> bytes:
        return b"".join(self.data[-len(LAST_CHUNK) :])

    def ask(self) -> End | None:
        """Ask httptools whether the message is whole, feeding it what it has not seen yet."""
        if self.parser is None:
            self.parser = httptools.HttpResponseParser(self.ends)
        pending = b"".join(self.data[self.fed :])
        self.fed = len(self.data)
        try:
            self.parser.feed_data(pending)
        except httptools.HttpParserError:
            self.keep_alive = False
            return End.COMPLETE if self.ends.count > self.interim else End.BAD
        if self.ends.count <= self.interim:
            return None
        self.keep_alive = self.keep_alive and self.ends.begun == self.interim + 1  # nothing that nobody asked for
        return End.COMPLETE

    def head(self, end: End, ended_ns: int) -> StreamHead:
        return StreamHead(
            number=self.index,
            intended_ns=self.intended_ns,
            connect_ns=0 if self.reused else self.connect_ns,
            connected_ns=0 if self.reused else self.connected_ns,
            sent_ns=self.sent_ns,
            ended_ns=ended_ns,
            end=end,
            stamp=self.stamp,
            retried=self.retried,
            port=self.port,
            wire_from=self.wire_from,
        )
