"""A box in memory, quick enough to be crashed thousands of times: brackets, pairs, partial grants."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Literal

from redline.node.sys import Ran, Stat, SysFault

VM = "/proc/sys/vm/"
THP = "/sys/kernel/mm/transparent_hugepage/enabled"
PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


class MemoryBox:
    """`attributes` as read, `files` with mode and owner, `most` caps what a number becomes, `refuse` maps a path to an
    errno's name, `step` is called before everything that changes the box."""

    kind: Literal["live", "fake", "recording"] = "fake"

    def __init__(self) -> None:
        self.attributes: dict[str, bytes] = {
            f"{VM}swappiness": b"60\n",
            f"{VM}dirty_ratio": b"20\n",
            f"{VM}dirty_bytes": b"0\n",
            f"{VM}max_map_count": b"65530\n",
            THP: b"[always] madvise never\n",
            PAGES: b"3\n",
            "/proc/sys/net/ipv4/tcp_rmem": b"4096\t131072\t6291456\n",
        }
        self.files: dict[str, tuple[bytes, Stat]] = {
            "/etc/sysctl.conf": (b"vm.swappiness = 60\n", Stat(0o644, 0, 0)),
            "/etc/default/grub": (b'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n', Stat(0o640, 0, 7)),
            "/boot/grub/grub.cfg": (b"linux /vmlinuz quiet\n", Stat(0o600, 0, 0)),
        }
        self.most: dict[str, int] = {}
        self.refuse: dict[str, str] = {}
        self.commands: dict[tuple[str, ...], Callable[[], int]] = {}
        self.ran: list[tuple[str, ...]] = []
        self.durable: list[str] = []
        self.step: Callable[[str], None] = lambda _what: None
        self.root = True

    def digest(self) -> str:
        """The state hash: every byte, mode and owner."""
        return hashlib.sha256(repr((sorted(self.attributes.items()), sorted(self.files.items()))).encode()).hexdigest()

    def copy(self) -> MemoryBox:
        other = MemoryBox()
        other.attributes, other.files = dict(self.attributes), dict(self.files)
        other.most, other.refuse, other.commands = dict(self.most), dict(self.refuse), dict(self.commands)
        return deepcopy(other) if not self.commands else other

    def _check(self, path: str) -> None:
        if path in self.refuse:
            name = self.refuse[path]
            why = {"EPERM": "denied", "EINVAL": "invalid", "EIO": "io", "EROFS": "readonly"}[name]
            raise SysFault(why, path, getattr(errno, name))  # type: ignore[arg-type]

    def read(self, path: str) -> bytes:
        if path in self.attributes:
            return self.attributes[path]
        if path in self.files:
            return self.files[path][0]
        raise SysFault("absent", path, errno.ENOENT)

    def exists(self, path: str) -> bool:
        return path in self.attributes or path in self.files or bool(self.names(path))

    def names(self, folder: str) -> list[str]:
        inside = folder.rstrip("/") + "/"
        found = {p[len(inside) :].split("/")[0] for p in [*self.files, *self.attributes] if p.startswith(inside)}
        return sorted(found)

    def link(self, path: str) -> str | None:
        return None

    def glob(self, pattern: str) -> list[str]:
        return sorted(path for path in [*self.files, *self.attributes] if fnmatchcase(path, pattern))

    def set_attribute(self, path: str, value: bytes) -> None:
        self.step(f"set {path}")
        if path not in self.attributes:
            raise SysFault("absent", path, errno.ENOENT)
        self._check(path)
        old, word = self.attributes[path].decode().strip(), value.decode().strip()
        if "[" in old:
            words = re.sub(r"[\[\]]", "", old).split()
            if word not in words:
                raise SysFault("invalid", path, errno.EINVAL)
            new = " ".join(f"[{each}]" if each == word else each for each in words)
        else:
            new = "\t".join(str(min(int(part), self.most.get(path, int(part)))) for part in word.split())
        if path.endswith("_bytes") and word == "0":
            raise SysFault("invalid", path, errno.EINVAL)
        partner = {"dirty_bytes": "dirty_ratio", "dirty_ratio": "dirty_bytes"}.get(path.removeprefix(VM))
        if partner and new != old:
            self.attributes[VM + partner] = b"0\n"
        self.attributes[path] = new.encode() + b"\n"

    def stat(self, path: str) -> Stat | None:
        return self.files[path][1] if path in self.files else None

    def put_file(self, path: str, content: bytes, stat: Stat | None = None) -> None:
        self.step(f"put {path}")
        self._check(path)
        self.files[path] = (content, stat or self.stat(path) or Stat(0o644, 0, 0))

    def remove_file(self, path: str) -> None:
        self.step(f"remove {path}")
        self._check(path)
        del self.files[path]

    def remove_folder(self, path: str) -> None:
        """Folders are the beginnings of names here."""

    def make_durable(self, paths: Sequence[str]) -> None:
        self.durable += paths

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "") -> Ran:
        self.step(f"run {' '.join(argv)}")
        self.ran.append(tuple(argv))
        command = self.commands.get(tuple(argv))
        return Ran(tuple(argv), command() if command else 127, "", "" if command else "no such command")

    def user_is_root(self) -> bool:
        return self.root
