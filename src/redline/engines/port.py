"""Ports: is it free, who holds it, give me one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from redline.errors import EnvironmentFault, PortInUse

LISTEN = "0A"


class Claim:
    """A port that is bound until `release`, which comes as late as possible: just before the engine binds it.

    `asked` 0 takes any free port. Raises PortInUse for one that is taken, EnvironmentFault for an address that is
    not ours.
    """

    def __init__(self, host: str, asked: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        # As servers do it: a port whose last connections linger in TIME_WAIT is free.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, asked))
            if asked:  # SO_REUSEADDR lets bind pass beside another bound socket; only listen shows the conflict
                self._socket.listen(1)
        except OSError as error:
            self._socket.close()
            raise _explained(host, asked, error) from error
        self.port: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _explained(host: str, port: int, error: OSError) -> EnvironmentFault:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} on {host} is in use",
            why=f"It is held by {holder(port) or 'a process that this user may not look into'}.",
            fix="Choose another port, or 0 for any free one.",
        )
    if error.errno == errno.EACCES:
        return EnvironmentFault(
            f"port {port} on {host} may not be used by this user", fix="Choose a port above 1023, or 0 for any."
        )
    return EnvironmentFault(f"cannot listen on {host}:{port}: {error.strerror}", fix="Check the engine's host field.")


def visible() -> bool:
    """True when this box lets us see who listens."""
    return os.access("/proc/net/tcp", os.R_OK)


def listeners(port: int) -> set[int]:
    """Inodes of the sockets that listen on this port, on any address."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(int(fields[9]))
    return inodes


def holds(pid: int, inodes: Iterable[int]) -> bool:
    """True when the process has one of these sockets open. OSError when it may not be looked into."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - thousands of them at times
        with suppress(OSError):
            if str(Path(f"/proc/{pid}/fd", fd).readlink()) in wanted:
                return True
    return False


def holder(port: int) -> str:
    """`pid 123 (python -m http.server)` of who listens on the port; empty when that cannot be seen."""
    inodes = listeners(port)
    for entry in Path("/proc").iterdir() if inodes else ():
        with suppress(OSError):
            if entry.name.isdigit() and holds(int(entry.name), inodes):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                return f"pid {entry.name} ({command[:120]})"
    return ""


def answered_by(port: int, pids: Iterable[int]) -> bool:
    """True when one of these processes listens on the port, or when that cannot be seen."""
    inodes = listeners(port)
    if not inodes:
        return True
    try:
        return any(holds(pid, inodes) for pid in pids)
    except OSError:
        return True
