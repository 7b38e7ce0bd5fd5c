"""What passes between redline and a load worker: length-prefixed frames on a socket pair, and raw streams in them.

frame   u32 payload length, u8 kind, payload (little-endian)
BODIES  any number of: a fixed head (see `_BODY`), the whole HTTP request
STREAM  a fixed head (see `_HEAD`), the error text, then per piece u32 length, i64 arrival stamp, i64 time of the
        read, then the bytes received
others  one JSON document
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import orjson


class Kind(IntEnum):
    """To the worker: TARGET, BODIES, PHASE, CANCEL. From it: READY, STREAM, TICK, PHASE_DONE, FAULT."""

    TARGET = 1
    BODIES = 2
    PHASE = 3
    CANCEL = 4
    READY = 16
    STREAM = 17
    TICK = 18
    PHASE_DONE = 19
    FAULT = 20


class End(IntEnum):
    """Why a raw stream ended, as the wire saw it; what it means is decided when it is parsed."""

    COMPLETE = 0  # the HTTP message is whole
    CLOSED = 1  # the server closed the connection: the proper end of a close-delimited answer, else a cut
    RESET = 2
    IDLE = 3  # no byte for the idle timeout
    SLOW = 4  # not done after the total timeout
    CANCELLED = 5
    CONNECT = 6  # no connection, or none that took the request
    BAD = 7  # no HTTP, or more bytes than any answer may have
    ABANDONED = 8  # our client hung up, as it was told to
    LOCAL = 9  # never left: this box had no port or descriptor for it


class Stamp(IntEnum):
    """Who said when bytes arrived."""

    USER = 0  # we did, after reading them
    KERNEL = 1  # the kernel, of the newest byte in each read
    PACKET = 2  # the kernel, of every segment


class Arrivals(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    DIRECTED = "directed"


@dataclass
class Target:
    """Where a worker connects, and its limits. Addresses were resolved once, by the parent."""

    family: int
    address: tuple[Any, ...]
    tls_name: str = ""
    """Server name for TLS; empty for plain TCP."""
    timeout_ns: int = 600_000_000_000
    idle_ns: int = 60_000_000_000
    answer_bytes_max: int = 256 << 20
    linger_ns: int = 0
    """Look at the sockets at most this often: fewer wake-ups, and more read at each. For targets whose segments have
    stamps of their own: else answers that are read together share one."""
    linger_most_ns: int = 0
    """Where streams are slow, up to this seldom."""
    compiled: bool = True
    """Read by compiled C where there is a compiler; False shows what Python costs."""
    timestamps: bool = True
    """Ask the kernel for receive stamps; False shows what a user-space client would report."""
    stall_every_ms: float = 0.0
    """Freeze the loop every so often, for `stall_ms`: how a client's own hiccups show is tested with it."""
    stall_ms: float = 0.0


@dataclass(frozen=True)
class Plant:
    """Faults of the client that are planted on purpose, to see that they show: `stall_ms` frozen every so often."""

    stall_every_ms: float = 0.0
    stall_ms: float = 0.0


@dataclass
class Phase:
    """One stretch of load. Bodies are taken in the order in which they were sent to the worker.

    closed: `clients` each send their next request when the one before ended; the first ones are spread over
    `ramp_ns`. open: request i is due at start + `offsets_ns[i]`, whatever the others do. directed: each is due at its
    own `due_ns`. `requests` is how many are sent at most; 0 lets `duration_ns` decide.
    """

    arrivals: Arrivals
    clients: int = 1
    requests: int = 0
    duration_ns: int = 0
    drain_ns: int = 0
    ramp_ns: int = 0
    start_ns: int = 0
    """Absolute (monotonic), so that several workers begin at one instant; 0: at once, or when all should have their
    connections."""
    first_client: int = 0
    client_step: int = 1
    """closed: this worker's clients are the first, first + step, … of all; only their place in the ramp differs."""
    offsets_ns: list[int] = field(default_factory=list)
    levels: list[tuple[int, int]] = field(default_factory=list)
    """closed: (offset, how many of the clients take part from then on), rising; empty for all of them all the time."""
    preconnect: bool = False
    """closed: open the clients' connections before the phase begins, so that its first requests leave together."""
    max_in_flight: int = 0
    """open: whoever is due while so many are in flight waits, and keeps its due time; 0 is no limit."""
    ends_fast: bool = True
    """Stop when nothing but failures comes back."""


@dataclass
class Tick:
    """What a worker says about itself ten times a second; totals since its start, not since the phase began."""

    sent: int = 0
    ended: int = 0
    good: int = 0
    """Requests that ended with a whole answer of status 2xx."""
    refused: int = 0
    """Requests for which there was no connection."""
    in_flight: int = 0
    pieces: int = 0
    bytes_in: int = 0
    cpu_s: float = 0.0
    starved: int = 0
    """Requests that were due while no body was at hand."""
    retried: int = 0
    clock_error_ns: int = 0
    clock_steps: int = 0
    clock_step_ns: int = 0
    backlog_max: int = 0
    """Most bytes that waited for the parent, in memory and on disk."""
    spilled: int = 0
    """Bytes that went through the disk because the parent was slow."""
    loop_lag_ms_p50: float = 0.0
    """How late the loop gets to what is due, since the phase began; of several workers the worst."""
    loop_lag_ms_p99: float = 0.0
    loop_lag_ms_max: float = 0.0
    held_back: int = 0
    """Requests that were due while as many as allowed were in flight."""
    awaits_acks: bool = False
    """The server holds chunks back until those before them are acknowledged."""


@dataclass
class PhaseDone:
    stopped_by: str
    """requests, duration, cancelled, refused or failing."""
    started_ns: int
    ended_ns: int
    sent: int
    tick: Tick


class Outgoing(NamedTuple):
    """A whole HTTP request on its way to a worker, and how its client behaves.

    `due_ns` (monotonic) is when a directed phase sends it; 0 elsewhere. The client hangs up `cancel_after_ns` after the
    send, and takes at most `read_bytes_per_s`; 0 in both is an ordinary client.
    """

    number: int
    request: bytes
    due_ns: int = 0
    cancel_after_ns: int = 0
    read_bytes_per_s: int = 0


class StreamHead(NamedTuple):
    """One request as the wire saw it; times in monotonic ns, 0 where it never happened.

    `connect_ns` and `connected_ns` are 0 on a connection that was used before.
    """

    number: int
    intended_ns: int
    connect_ns: int
    connected_ns: int
    sent_ns: int
    ended_ns: int
    end: End
    stamp: Stamp
    retried: int
    port: int = 0
    """Ours of the connection."""
    wire_from: int = 0
    """Bytes that had arrived on the connection before those of this answer."""


@dataclass
class RawStream:
    """A finished request with everything that came back.

    Piece i is `lengths[i]` bytes of `data`, stamped at `stamps[i]` by whom `head.stamp` says, and read by us at
    `seen[i]`: the difference is the error of a client that stamps in user space. Under TLS `wire[i]` is how many bytes
    had come over the wire for this answer when piece i was whole; otherwise it is empty, for those are the same bytes.
    """

    head: StreamHead
    error: str
    data: bytes
    lengths: Sequence[int]
    stamps: Sequence[int]
    seen: Sequence[int]
    wire: Sequence[int] = ()


_FRAME = struct.Struct("<IB")
_BODY = struct.Struct("<IIqqI")
_HEAD = struct.Struct("<IqqqqqBBHHQHIB")


def pack(kind: Kind, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), kind) + payload


def pack_json(kind: Kind, value: object) -> bytes:
    return pack(kind, orjson.dumps(value))


def pack_bodies(bodies: Iterable[Outgoing]) -> bytes:
    return pack(
        Kind.BODIES,
        b"".join(
            _BODY.pack(body.number, len(body.request), body.due_ns, body.cancel_after_ns, body.read_bytes_per_s)
            + body.request
            for body in bodies
        ),
    )


def unpack_bodies(payload: bytes) -> Iterator[Outgoing]:
    at = 0
    while at < len(payload):
        number, size, due_ns, cancel_after_ns, read_bytes_per_s = _BODY.unpack_from(payload, at)
        at += _BODY.size
        yield Outgoing(number, payload[at : at + size], due_ns, cancel_after_ns, read_bytes_per_s)
        at += size


def pack_stream(
    head: StreamHead, error: str, data: list[bytes], stamps: list[int], seen: list[int], wire: Sequence[int] = ()
) -> bytes:
    said = error.encode()[:2000]
    parts = (
        _HEAD.pack(*head, len(said), len(data), bool(wire)),
        said,
        array("I", map(len, data)).tobytes(),
        array("q", stamps).tobytes(),
        array("q", seen).tobytes(),
        array("q", wire).tobytes(),
        *data,
    )
    return b"".join((_FRAME.pack(sum(map(len, parts)), Kind.STREAM), *parts))


def unpack_stream(payload: bytes) -> RawStream:
    number, intended, connect, connected, sent, ended, end, stamp, retried, port, wire_from, error_size, pieces, tls = (
        _HEAD.unpack_from(payload)
    )
    head = StreamHead(
        number, intended, connect, connected, sent, ended, End(end), Stamp(stamp), retried, port, wire_from
    )
    at = _HEAD.size
    error = payload[at : at + error_size].decode("utf-8", "replace")
    at += error_size
    columns: list[array[int]] = []
    for code, width in (("I", 4), ("q", 8), ("q", 8), *([("q", 8)] if tls else [])):
        column: array[int] = array(code)
        column.frombytes(payload[at : at + width * pieces])
        columns.append(column)
        at += width * pieces
    return RawStream(head, error, payload[at:], *columns)


class FrameReader:
    """Cuts a byte stream into frames, however it is split."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Every frame that is whole by now."""
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _FRAME.size:
            size, kind = _FRAME.unpack_from(buffer, at)
            end = at + _FRAME.size + size
            if len(buffer) < end:
                break
            yield Kind(kind), bytes(buffer[at + _FRAME.size : end])
            at = end
        del buffer[:at]
