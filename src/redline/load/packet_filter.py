"""A classic BPF program for a packet socket: TCP from one address and port, with data in it or opening a connection.

What it returns is how many bytes of the packet are kept: exactly the fixed headers, so that all frames of a ring have
the same size. Offsets count from the network header (SOCK_DGRAM).
https://www.kernel.org/doc/Documentation/networking/filter.txt
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import replace

from redline.load.frames import Target

HEADERS = {socket.AF_INET: 40, socket.AF_INET6: 60}
"""Bytes of the IP and TCP headers without options."""

_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30  # A = packet[k]
_ST, _LDX_MEM = 0x02, 0x61
_JEQ, _JSET, _JGT = 0x15, 0x45, 0x25
_AND, _RSH, _SUB_X, _SUB, _RET = 0x54, 0x74, 0x1C, 0x14, 0x06

Instruction = tuple[int, int | str, int | str, int]
"""Code, where to go if true and if false (a label or 0 for the next one), operand."""


def as_packets_say(target: Target) -> Target:
    """An IPv4 address in IPv6's clothes (::ffff:1.2.3.4) travels as IPv4."""
    address = ipaddress.ip_address(str(target.address[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return replace(target, family=int(socket.AF_INET), address=(str(address.ipv4_mapped), target.address[1]))
    return target


def program(target: Target) -> bytes:
    """struct sock_filter[], eight bytes each."""
    family = socket.AddressFamily(target.family)
    rules = (_ipv4 if family == socket.AF_INET else _ipv6)(str(target.address[0]))
    keep = HEADERS[family]
    tcp = keep - 20
    rules += [
        (_LD_H, 0, 0, tcp), (_JEQ, 0, "drop", int(target.address[1])),
        (_LD_B, 0, 0, tcp + 13), (_JSET, "keep", 0, 2),  # SYN
        (_LD_B, 0, 0, tcp + 12), (_AND, 0, 0, 0xF0), (_RSH, 0, 0, 2), (_ST, 0, 0, 0), (_LDX_MEM, 0, 0, 0),
        (_LD_H, 0, 0, 2 if family == socket.AF_INET else 4),
        (_JEQ, "keep", 0, 0),  # larger than its length field can say
        (_SUB, 0, 0, 20 if family == socket.AF_INET else 0), (_SUB_X, 0, 0, 0),
        (_JGT, "keep", "drop", 0),
    ]  # fmt: skip
    return _assemble(rules, keep)


def _ipv4(address: str) -> list[Instruction]:
    """No options, no fragments, TCP, from this address."""
    [source] = struct.unpack(">I", socket.inet_aton(address))
    return [
        (_LD_B, 0, 0, 0), (_JEQ, 0, "drop", 0x45),
        (_LD_B, 0, 0, 9), (_JEQ, 0, "drop", 6),
        (_LD_H, 0, 0, 6), (_JSET, "drop", 0, 0x3FFF),
        (_LD_W, 0, 0, 12), (_JEQ, 0, "drop", source),
    ]  # fmt: skip


def _ipv6(address: str) -> list[Instruction]:
    """No extension headers, TCP, from this address."""
    words = struct.unpack(">4I", socket.inet_pton(socket.AF_INET6, address.partition("%")[0]))
    rules: list[Instruction] = [(_LD_B, 0, 0, 6), (_JEQ, 0, "drop", 6)]
    for i, word in enumerate(words):
        rules += [(_LD_W, 0, 0, 8 + 4 * i), (_JEQ, 0, "drop", word)]
    return rules


def _assemble(rules: list[Instruction], keep: int) -> bytes:
    ends = {"keep": len(rules), "drop": len(rules) + 1}

    def jump(to: int | str, at: int) -> int:
        return ends[to] - at - 1 if isinstance(to, str) else to

    code = [struct.pack("HBBI", op, jump(yes, i), jump(no, i), k) for i, (op, yes, no, k) in enumerate(rules)]
    return b"".join((*code, struct.pack("HBBI", _RET, 0, 0, keep), struct.pack("HBBI", _RET, 0, 0, 0)))
