"""How large a packet gets through to a host, and whether a changed frame size swallows packets on the way. IPv4.

Packets are sent with the don't-fragment bit set and without regard to what the kernel has heard of the path
(IP_PMTUDISC_PROBE, ip(7)). ICMP echo where the privilege is there and the host answers; else UDP to a port where nobody
listens, which a host refuses. Sizes are in bytes of the whole IP packet, as an MTU is.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from redline.errors import EnvironmentFault

SMALL = 84
"""An ordinary ping."""
LARGEST = 65535
TRIES = 3
ANSWER_S = 0.5
_HEADERS = 28
"""IP and ICMP, or IP and UDP."""
_MTU_DISCOVER, _DO, _PROBE, _IP_MTU = 10, 2, 3, 14
_PORT = 33434
"""Of traceroute: nobody listens there."""

Way = Literal["icmp", "udp", ""]


@dataclass(frozen=True)
class Path:
    """`way` '': the host answers to nothing. `mtu`: the largest packet that was answered, of those tried, 0: none.
    `told`: what a router said that fits, 0: none said anything."""

    host: str
    way: Way
    mtu: int = 0
    told: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def path_mtu(host: str, upto: int = 9000, *, answer_s: float = ANSWER_S) -> Path:
    """The largest packet that `host` answers, up to `upto`. EnvironmentFault for a name that has no address."""
    address = resolved(host)
    way = answering(address, answer_s)
    if not way:
        return Path(host, "")
    began = time.monotonic()
    answers(address, SMALL, way, answer_s)
    # what does not come soon does not come: every size that is swallowed costs TRIES of these
    answer_s = min(answer_s, max(0.1, 10 * (time.monotonic() - began)))

    def passes(size: int) -> bool:
        return answers(address, size, way, answer_s)

    return Path(host, way, _largest(passes, upto), told(address, upto))


def _largest(passes: Callable[[int], bool], upto: int) -> int:
    """By halving; first the sizes that are common, of which it is one nearly always."""
    if passes(upto):
        return upto
    low, high = SMALL, upto
    for size in (1500, 9000, 1450, 1400):
        if not low < size < high:
            continue
        if passes(size):
            low = size
        else:
            high = size
    if low + 1 < high and not passes(low + 1):
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


def resolved(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        raise EnvironmentFault(
            f"{host} has no IPv4 address here: {error}", fix="an address instead of a name"
        ) from error
    return str(found[0][4][0])


def answering(address: str, answer_s: float = ANSWER_S) -> Way:
    """How the host can be asked."""
    ways: tuple[Way, ...] = ("icmp", "udp")
    return next((way for way in ways if answers(address, SMALL, way, answer_s)), "")


def answers(address: str, size: int, way: Way, answer_s: float = ANSWER_S) -> bool:
    """Whether a packet of `size` gets there whole and is answered, in one of TRIES."""
    send = _echo if way == "icmp" else _refused
    for number in range(TRIES):
        try:
            if send(address, size, number, answer_s):
                return True
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.EPERM, errno.EACCES):
                return False  # larger than the card's own, or not allowed to ask in this way
            time.sleep(min(answer_s, 0.1))  # no route, no neighbour: that may come back
    return False


def _echo(address: str, size: int, number: int, answer_s: float) -> bool:
    mark = (os.getpid() ^ (number * 7919)) & 0xFFFF
    body = bytes(max(size - _HEADERS, 0))
    head = struct.pack("!BBHHH", 8, 0, 0, mark, number)
    packet = struct.pack("!BBHHH", 8, 0, _checksum(head + body), mark, number) + body
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as asking:
        asking.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _PROBE)
        asking.connect((address, 0))
        asking.send(packet)
        deadline = time.monotonic() + answer_s
        while (left := deadline - time.monotonic()) > 0:
            asking.settimeout(left)
            try:
                reply = asking.recv(LARGEST)
            except TimeoutError:
                return False
            icmp = reply[(reply[0] & 15) * 4 :]
            if icmp[:2] == b"\0\0" and icmp[4:8] == struct.pack("!HH", mark, number):
                return len(reply) >= size
    return False


def _checksum(packet: bytes) -> int:
    """RFC 1071."""
    padded = packet + b"\0" * (len(packet) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _refused(address: str, size: int, number: int, answer_s: float) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _PROBE)
        asking.connect((address, _PORT + number))
        asking.settimeout(answer_s)
        asking.send(bytes(max(size - _HEADERS, 0)))
        try:
            asking.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            time.sleep(answer_s)  # hosts limit how many refusals they send in a second
            return False
    return True


def told(address: str, size: int, wait_s: float = 0.2) -> int:
    """What a router on the way, or the card itself, says that fits, when `size` does not; 0 when nobody says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _DO)
        with suppress(OSError):
            asking.connect((address, _PORT))
            for _ in range(TRIES):
                with suppress(OSError):  # refused, or too large by now, which is the answer
                    asking.send(bytes(max(size - _HEADERS, 0)))
                time.sleep(wait_s)
                fits = int(asking.getsockopt(socket.IPPROTO_IP, _IP_MTU))
                if fits < size:
                    return fits
    return 0
