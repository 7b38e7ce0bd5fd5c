"""How a worker waits and reads: by one call of C per wake-up (`receive.c`); without a compiler, piece by piece.

Both find the same things at the same time; compiled, a piece in the middle of an answer costs no Python at all until
somebody takes many of them out of the connection's inbox. What is special stays with Python in both: the head of an
answer and whatever may be its end, TLS, slow readers, errors, a wall clock that was set.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path

from redline.compiled import NoCompiler, build
from redline.load.frames import Stamp
from redline.load.linger import ROUND_TRIP_NS
from redline.load.wire import READ_BYTES, Connection, Inbox

SOURCE = Path(__file__).with_name("receive.c")
FLAGS = ("-O2", "-std=gnu11")

LOOK, CLOSED, BROKEN, PIECE = 1, 2, 3, 4
"""What is told of an entrusted connection: a piece after which the answer may be over, which the inbox has; the end of
the stream; an error; a piece that the inbox could not take."""
_MASK, _WHAT = 32, 8


def told(word: int) -> tuple[int, int]:
    """(what, errno) of an event's second number; `what` is 0 for an event as epoll tells it."""
    return word >> _MASK & (1 << _WHAT) - 1, word >> _MASK + _WHAT


class Interpreted:
    """Tells every event as epoll does, and reads nothing by itself."""

    batch = 16
    """Events between two looks at the clock: a fifth of a millisecond of work, as in `Compiled`."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.found = 0
        """Descriptors that had something at the last look, told or not."""

    def wait(self, *, forever: bool) -> list[tuple[int, int]]:
        """(descriptor, epoll's mask with what `told` takes apart above it)."""
        events = self._epoll.poll(None if forever else 0, self.batch)
        self.found = len(events)
        return events

    def entrust(self, conn: Connection) -> None:
        """From now on, until its request is over, the pieces of this connection may be read at the next `wait`."""

    def drain(self, conn: Connection) -> None:
        """Hand over what was read of it."""

    def held(self) -> tuple[int, int]:
        """(pieces, bytes) that were read and not handed over."""
        return 0, 0

    def release(self, conn: Connection) -> None:
        """Its request is over."""

    def forget(self, conn: Connection) -> None:
        """Its descriptor is about to be closed."""

    def piece(self) -> tuple[bytes, int, int]:
        """The one that was told: (bytes, the kernel's stamp in CLOCK_REALTIME ns or 0, when it was read)."""
        raise LookupError

    def take_quick(self) -> int:
        """How many pieces that nobody was told of came within ROUND_TRIP_NS after one of the same stream."""
        return 0

    def set_offset(self, ns: int) -> None:
        """CLOCK_REALTIME less CLOCK_MONOTONIC."""

    def close(self) -> None:
        self._epoll.close()


class _Receiver(ctypes.Structure):
    _numbers = (
        "offset_ns", "round_trip_ns", "quick", "count", "size", "realtime_ns", "seen_ns", "bytes", "capacity",
    )  # fmt: skip
    _fields_ = [
        *((name, ctypes.c_int64) for name in _numbers),
        ("inboxes", ctypes.c_void_p),
        ("buffer", ctypes.c_char * READ_BYTES),
    ]


class _Told(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int32), ("mask", ctypes.c_uint32), ("what", ctypes.c_int32), ("error", ctypes.c_int32)]


class Compiled(Interpreted):
    """Raises `NoCompiler`."""

    batch = 32

    def __init__(self, epoll: select.epoll, folder: Path | None = None) -> None:
        super().__init__(epoll)
        lib = build(SOURCE, FLAGS, folder)
        lib.receiver_open.restype = ctypes.POINTER(_Receiver)
        lib.inbox_open.restype = ctypes.POINTER(Inbox)
        self._lib = lib
        self._pointer = lib.receiver_open()
        if not self._pointer:
            raise MemoryError
        self._receiver = self._pointer.contents
        self._receiver.round_trip_ns = ROUND_TRIP_NS
        self._told = (_Told * self.batch)()
        self._found = ctypes.c_int()
        self._wait = lib.receiver_wait
        self._to_wait = (self._pointer, epoll.fileno())
        self._out = (self.batch, self._told, ctypes.byref(self._found))

    def wait(self, *, forever: bool) -> list[tuple[int, int]]:
        count = self._wait(*self._to_wait, -1 if forever else 0, *self._out)
        if count < 0:
            raise OSError(-count, os.strerror(-count))
        self.found = self._found.value
        return [(t.fd, t.mask | t.what << _MASK | t.error << _MASK + _WHAT) for t in self._told[:count]]

    def entrust(self, conn: Connection) -> None:
        if conn.inbox is None:
            box = self._lib.inbox_open(self._pointer, conn.fd)
            if not box:
                return  # no memory: it is read as if there were no inboxes
            conn.inbox = box.contents
        box = conn.inbox
        if not box.live:
            box.sent_ns, box.last_ns, box.live = conn.sent_ns, conn.seen[-1], 1

    def drain(self, conn: Connection) -> None:
        box = conn.inbox
        if box is None or not box.count:
            return
        n, at = box.count, 0
        data = ctypes.string_at(box.data, box.size)
        for length in struct.unpack(f"{n}i", ctypes.string_at(box.lengths, 4 * n)):
            conn.data.append(data[at : at + length])
            at += length
        conn.stamps += struct.unpack(f"{n}q", ctypes.string_at(box.stamps, 8 * n))
        conn.seen += struct.unpack(f"{n}q", ctypes.string_at(box.seen, 8 * n))
        conn.size += box.size
        if box.unstamped:
            conn.stamp = Stamp.USER
        self._lib.inbox_empty(self._pointer, ctypes.byref(box))

    def held(self) -> tuple[int, int]:
        return self._receiver.count, self._receiver.size

    def release(self, conn: Connection) -> None:
        if conn.inbox is not None:
            conn.inbox.live = 0

    def forget(self, conn: Connection) -> None:
        if conn.inbox is not None:
            conn.inbox = None
            self._lib.inbox_close(self._pointer, conn.fd)

    def piece(self) -> tuple[bytes, int, int]:
        it = self._receiver
        return ctypes.string_at(ctypes.addressof(it) + _Receiver.buffer.offset, it.bytes), it.realtime_ns, it.seen_ns

    def take_quick(self) -> int:
        quick: int = self._receiver.quick
        self._receiver.quick = 0
        return quick

    def set_offset(self, ns: int) -> None:
        self._receiver.offset_ns = ns

    def close(self) -> None:
        super().close()
        self._lib.receiver_close(self._pointer)


def best(epoll: select.epoll, *, compiled: bool = True) -> tuple[Interpreted, str]:
    """The quickest that this box allows, and why it is not the compiled one ('' when it is)."""
    if not compiled:
        return Interpreted(epoll), "not wanted"
    try:
        return Compiled(epoll), ""
    except NoCompiler as why:
        return Interpreted(epoll), str(why)
