"""The box as something that is read and written: live, a folder that behaves like one, or live and recorded.

Two kinds of writes are kept apart because they fail and are undone differently. An *attribute* is a file of /proc or
/sys: it exists, one write(2) sets it, the kernel may refuse or change the value. A *file* is a configuration file on
disk: it is replaced as a whole, atomically, with mode and owner kept, or created, or removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Why = Literal["absent", "denied", "invalid", "busy", "io", "readonly", "unsupported"]
"""ENOENT, ENODEV · EPERM, EACCES · EINVAL, ERANGE · EBUSY · EIO · EROFS · everything else."""


class SysFault(Exception):
    """A read, write or command that the box refused; `why` is the kind, `errno` the number (0: none)."""

    def __init__(self, why: Why, path: str, errno: int = 0, detail: str = "") -> None:
        super().__init__(f"{path}: {why}{f' ({detail})' if detail else ''}")
        self.why: Why = why
        self.path = path
        self.errno = errno
        self.detail = detail


@dataclass(frozen=True)
class Ran:
    """A command that ended. `rc` 127: no such command."""

    argv: tuple[str, ...]
    rc: int
    out: str
    err: str = ""


@dataclass(frozen=True)
class Stat:
    """Of a file on disk; what is needed to put it back."""

    mode: int
    uid: int
    gid: int


class Sys(Protocol):
    """Paths are absolute as on the box (`/sys/...`), whatever folder stands behind. Every method may raise
    `SysFault`."""

    kind: Literal["live", "fake", "recording"]

    def read(self, path: str) -> bytes: ...

    def exists(self, path: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """Entries of a folder, sorted; [] when it is absent."""
        ...

    def link(self, path: str) -> str | None:
        """Where a symbolic link points, as text; None when it is none."""
        ...

    def glob(self, pattern: str) -> list[str]:
        """Absolute paths that match, sorted."""
        ...

    def set_attribute(self, path: str, value: bytes) -> None:
        """One write(2) without creating or truncating: `echo value > path`, told exactly why it failed."""
        ...

    def stat(self, path: str) -> Stat | None:
        """None when there is no such file."""
        ...

    def put_file(self, path: str, content: bytes, stat: Stat | None = None) -> None:
        """Writes beside, fsyncs, renames over, fsyncs the folder. Makes missing folders. `stat` None: as before, or
        0644."""
        ...

    def remove_file(self, path: str) -> None: ...

    def remove_folder(self, path: str) -> None:
        """One that is empty; any other stays."""
        ...

    def make_durable(self, paths: Sequence[str]) -> None:
        """Files that a command wrote: from here on no power cut takes them back, also for a boot loader, which reads
        a file system without its journal."""
        ...

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "") -> Ran:
        """A command. On a fake box it is looked up in recorded transcripts, or answered with rc 127."""
        ...

    def user_is_root(self) -> bool: ...


def text(sys: Sys, path: str) -> str | None:
    """Content, stripped; None when it cannot be read for whatever reason."""
    try:
        return sys.read(path).decode(errors="replace").strip()
    except SysFault:
        return None


def under(root: Path, path: str) -> Path:
    """The path on this machine that stands for `path` of a box that is kept under `root`."""
    return root / path.lstrip("/")
