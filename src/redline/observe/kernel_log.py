"""Xids: errors that NVIDIA's driver writes into the kernel log, each with its time.

Read from /dev/kmsg (CAP_SYSLOG, or kernel.dmesg_restrict=0), whose format is Documentation/ABI/testing/dev-kmsg. NVML
and DCGM keep only the last Xid and not when it was. A line with the word SIMULATED in it is of a test and stays one.
"""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from redline.clock import now_ns
from redline.errors import Skipped

KMSG = Path("/dev/kmsg")
Kind = Literal["hardware", "application", "other"]

# of NVIDIA's Xid catalogue: those after which a GPU is not to be trusted, and those that programs cause
HARDWARE = {
    48: "uncorrectable ECC error",
    62: "the GPU's power controller halted",
    64: "a bad row of memory could not be replaced",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    95: "uncontained ECC error",
    119: "the GPU's system processor did not answer",
    120: "the GPU's system processor failed",
    140: "unrecovered ECC error",
}
APPLICATION = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "the GPU stopped processing",
    45: "a program's work was taken off the GPU",
}
OTHER = {63: "a bad row of memory will be replaced", 94: "contained ECC error"}
_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)[^)]*\): (\d+)")
_BYTES = 8192
_MOST = 4 << 20
"""Read in one go; the rest waits for the next time."""


@dataclass(frozen=True)
class Xid:
    """`at_wall_s` is Unix time, `at_ns` the same on the clock of `clock.now_ns`, `text` the line."""

    number: int
    pci: str
    at_wall_s: float
    simulated: bool
    at_ns: int = 0
    text: str = ""

    @property
    def kind(self) -> Kind:
        return "hardware" if self.number in HARDWARE else "application" if self.number in APPLICATION else "other"

    @property
    def meaning(self) -> str:
        return (HARDWARE | APPLICATION | OTHER).get(self.number, "see NVIDIA's Xid catalogue")


class KernelLog:
    """From the oldest line that the kernel still has; each line once.

    The kernel's clock of the log is not disciplined by NTP: after weeks it may be minutes from CLOCK_MONOTONIC. A line
    that was not there at the look before was written since, whatever its own time says.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self._looked_ns = 0

    @classmethod
    def open(cls, path: Path = KMSG) -> Self | Skipped:
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            how = "run as root, or with CAP_SYSLOG; in a container also --device /dev/kmsg"
            return Skipped(f"the kernel log {path} cannot be read: {error.strerror}", how)

    def close(self) -> None:
        os.close(self._fd)

    def to_end(self) -> None:
        """What is there already is not read. OSError when that cannot be."""
        self._looked_ns = now_ns()
        os.lseek(self._fd, 0, os.SEEK_END)

    def read(self) -> list[Xid]:
        """The new ones. OSError when the log cannot be read any more."""
        found: list[Xid] = []
        began_ns, taken = now_ns(), 0
        while taken < _MOST:
            try:
                chunk = os.read(self._fd, _BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE:  # lines were overwritten before they were read; it goes on after them
                    continue
                raise
            if not chunk:
                break
            taken += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            found += [xid for line in lines if (xid := _xid(line, self._looked_ns))]
        else:
            return found  # there is more, from before this look
        self._looked_ns = began_ns
        return found


def _xid(line: bytes, since_ns: int) -> Xid | None:
    head, _, text = line.decode("utf-8", "replace").partition(";")
    match = _LINE.search(text)
    fields = head.split(",")
    if match is None or len(fields) < 3 or not fields[2].isdigit():
        return None
    at_ns = min(max(int(fields[2]) * 1000, since_ns), now_ns())
    wall_s, simulated = at_ns / 1e9 + time.time() - time.monotonic(), "SIMULATED" in text
    return Xid(int(match[2]), match[1], wall_s, simulated, at_ns, text.strip())
