"""Every segment's own arrival stamp, from a ring of packet headers that the kernel fills while nobody is looking.

A socket's stamp (SO_TIMESTAMPNS) is that of the newest data in a read: a client that was frozen finds several segments
merged and their stamps lost. A packet socket (AF_PACKET, TPACKET_V3) keeps one header per segment in memory that the
kernel writes and we map, so that the stamps survive any freeze that is shorter than the ring is large. Only headers
are kept, only of packets that come from the server's address and port, and only of those that carry data or open a
connection. Needs CAP_NET_RAW. https://docs.kernel.org/networking/packet_mmap.html
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redline.clock import now_ns
from redline.errors import Skipped
from redline.load.frames import Target
from redline.load.packet_filter import HEADERS, as_packets_say, program
from redline.load.stamps import StampClock
from redline.units import NS_PER_MS, NS_PER_S

RING_BYTES = 32 << 20
"""About 240,000 headers: five seconds at 50,000 segments per second while nobody empties it."""

# A block is handed over when it is full or this old, so few segments fill a ring as fast as many do: in 512 blocks of
# 20 ms redline may be away for ten seconds.
_BLOCK_BYTES = 1 << 16
_RETIRE_MS = 20
_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 5, 6, 10, 23
_TPACKET_V3 = 2
_SO_ATTACH_FILTER = 26
_USER = 1
_SIOCGIFMTU = 0x8921
_SETTLE_NS = 3 * _RETIRE_MS * NS_PER_MS

Ints = NDArray[np.int64]
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Segments:
    """Of n segments in the order of their arrival: monotonic ns, the client's port, the TCP sequence number of the
    first byte, how many bytes of payload, and whether it opens a connection."""

    t_ns: Ints
    port: Ints
    seq: Ints
    size: Ints
    syn: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.t_ns)


class PacketRing:
    """Open from construction to `close`. Skipped (raised as the reason) by `open_ring` where it cannot be had."""

    def __init__(self, target: Target, ring_bytes: int = RING_BYTES) -> None:
        target = as_packets_say(target)
        family = socket.AddressFamily(target.family)
        protocol = 0x0800 if family == socket.AF_INET else 0x86DD
        self._headers = HEADERS[family]
        self._clock = StampClock(True)
        # protocol 0: nothing is delivered before the filter and the ring are in place
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._map: mmap.mmap | None = None
        try:
            self._set_up(target, max(ring_bytes // _BLOCK_BYTES, 2))
            _bind(self._sock, protocol)
        except BaseException:
            self.close()
            raise
        self._block = 0
        self.drops = 0
        self.packets = 0
        self.merged = 0
        """Segments larger than their device carries: the kernel put several together (GRO) before anybody saw them."""
        self._mtu: dict[int, int] = {}
        self.settled_ns = 0
        """Every segment that arrived before this has been handed out."""

    def _set_up(self, target: Target, blocks: int) -> None:
        sock = self._sock
        code = program(target)
        self._filter = ctypes.create_string_buffer(code, len(code))  # the kernel copies it; kept until then
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(code) // 8, ctypes.addressof(self._filter))
        )
        sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)  # loopback shows every packet twice
        sock.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
        frame = 2048
        request = (_BLOCK_BYTES, blocks, frame, _BLOCK_BYTES // frame * blocks, _RETIRE_MS, 0, 0)
        sock.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("7I", *request))
        self._blocks = blocks
        self._map = mmap.mmap(sock.fileno(), _BLOCK_BYTES * blocks)

    def close(self) -> None:
        """Twice is fine."""
        if self._map is not None:
            self._map.close()
            self._map = None
        self._sock.close()
        self._clock.close()

    def drain(self) -> list[Segments]:
        """What the kernel has handed over since the last call."""
        began = now_ns()
        self._clock.reread()
        found = []
        while (block := self._next_block()) is not None:
            if len(block):
                found.append(block)
                self.packets += len(block)
        if self._block_waits():  # it goes on in the next call
            return found
        _, drops, _ = struct.unpack("3I", self._sock.getsockopt(_SOL_PACKET, _STATISTICS, 12))
        self.drops += drops
        self.settled_ns = began - _SETTLE_NS
        return found

    def _block_waits(self) -> bool:
        assert self._map is not None
        return bool(struct.unpack_from("I", self._map, self._block * _BLOCK_BYTES + 8)[0] & _USER)

    def _next_block(self) -> Segments | None:
        """The next block that the kernel is done with; it gets the block back."""
        assert self._map is not None
        base = self._block * _BLOCK_BYTES
        status, count, first, used = struct.unpack_from("4I", self._map, base + 8)
        if not status & _USER:
            return None
        raw = np.frombuffer(self._map[base : base + max(used, first)], np.uint8)
        struct.pack_into("I", self._map, base + 8, 0)
        self._block = (self._block + 1) % self._blocks
        found = self._decode(raw, count, first)
        if count:
            self._look_for_merged(found, int(raw[first + 52 : first + 56].view("<i4")[0]))
        return found

    def _look_for_merged(self, found: Segments, device: int) -> None:
        if device not in self._mtu:
            self._mtu[device] = _mtu(device)
        self.merged += int(np.count_nonzero(found.size > self._mtu[device] - self._headers))

    def _decode(self, raw: NDArray[np.uint8], count: int, first: int) -> Segments:
        if count == 0:
            return _segments([np.empty((0, 256), np.uint8)], self._headers, self._clock.offset_ns)
        step = int(raw[first : first + 4].view("<u4")[0]) if count > 1 else len(raw) - first
        # all headers are cut to the same length, so the frames of a block lie at equal distances
        if count > 1 and first + step * (count - 1) + 48 <= len(raw):
            need = first + step * count
            padded = raw if len(raw) >= need else np.concatenate((raw, np.zeros(need - len(raw), np.uint8)))
            frames = padded[first:need].reshape(count, step)
            if (frames[:-1, :4].copy().view("<u4")[:, 0] == step).all():
                return _segments([frames], self._headers, self._clock.offset_ns)
        return _segments(_walk(raw, count, first), self._headers, self._clock.offset_ns)


def _bind(sock: socket.socket, protocol: int) -> None:
    """To every interface, which socket.bind cannot say. OSError as usual."""
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(protocol), 0, 0, 0, 0)
    if _libc.bind(sock.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _mtu(device: int) -> int:
    """Of an interface by its index; very large when it is gone."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            name = socket.if_indextoname(device).encode()
            told = fcntl.ioctl(asker, _SIOCGIFMTU, struct.pack("16s16x", name))
            return int(struct.unpack_from("i", told, 16)[0])
    except OSError:
        return 1 << 40


def _walk(raw: NDArray[np.uint8], count: int, first: int) -> list[NDArray[np.uint8]]:
    """Frames one by one, where they are not all alike."""
    frames, at = [], first
    for _ in range(count):
        frame = raw[at : at + 256]
        frames.append(np.pad(frame, (0, 256 - len(frame)))[None, :])
        at += int(raw[at : at + 4].view("<u4")[0])
    return frames


def _segments(parts: list[NDArray[np.uint8]], headers: int, offset_ns: int) -> Segments:
    """Frame: struct tpacket3_hdr, whose fields are the machine's own; then the packet from its network header on."""
    columns: list[list[Ints]] = [[], [], [], [], []]
    for frames in parts:
        if not len(frames):
            continue
        net = int(frames[0, 26]) | int(frames[0, 27]) << 8
        tcp = net + headers - 20
        realtime = _little(frames, 4, 4) * NS_PER_S + _little(frames, 8, 4)
        total = _big(frames, net + 2, 2) if headers == 40 else _big(frames, net + 4, 2) + 40
        total = np.where(total > headers - 20, total, _little(frames, 16, 4))  # longer than its field can say
        offset = (frames[:, tcp + 12].astype(np.int64) >> 4) * 4
        columns[0].append(realtime - offset_ns)
        columns[1].append(_big(frames, tcp + 2, 2))
        columns[2].append(_big(frames, tcp + 4, 4))
        columns[3].append(np.maximum(total - (headers - 20) - offset, 0))
        columns[4].append((frames[:, tcp + 13] & 2).astype(np.int64))
    joined = [np.concatenate(column) if column else np.empty(0, np.int64) for column in columns]
    return Segments(joined[0], joined[1], joined[2], joined[3], joined[4] != 0)


def _little(frames: NDArray[np.uint8], at: int, width: int) -> Ints:
    return sum((frames[:, at + i].astype(np.int64) << (8 * i) for i in range(width)), np.zeros(len(frames), np.int64))


def _big(frames: NDArray[np.uint8], at: int, width: int) -> Ints:
    return sum(
        (frames[:, at + i].astype(np.int64) << (8 * (width - 1 - i)) for i in range(width)),
        np.zeros(len(frames), np.int64),
    )


def open_ring(target: Target, ring_bytes: int = RING_BYTES) -> PacketRing | Skipped:
    """The ring, or why it cannot be had here and what would bring it."""
    if not hasattr(socket, "AF_PACKET"):
        return Skipped("packet stamps need Linux", "run it on Linux")
    try:
        return PacketRing(target, ring_bytes)
    except PermissionError:
        return Skipped(
            "packet stamps need CAP_NET_RAW, which this process lacks",
            "run as root, or: sudo setcap cap_net_raw+ep $(readlink -f $(command -v python3))",
        )
    except OSError as error:
        return Skipped(f"the kernel gives no packet ring: {error}", "Linux 4.20 or later with CONFIG_PACKET")
