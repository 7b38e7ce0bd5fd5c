"""A box whose every read is kept, so that the same questions can be asked of the copy later and elsewhere."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from redline.node.fake import Box
from redline.node.sys import Ran, Stat, Sys, SysFault, under


class RecordingSys:
    """Passes everything on to `inner` and copies what was read to the folder `into`; `save` writes the rest.

    Writes are passed on and not copied: the copy is what was there before.
    """

    kind: Literal["live", "fake", "recording"] = "recording"

    def __init__(self, inner: Sys, into: Path) -> None:
        self.inner = inner
        self.into = into
        self.box = Box(label="recorded", root=inner.user_is_root())

    def save(self) -> None:
        """Writes the commands' answers and what could not be read beside the copied files."""
        self.box.save(self.into)

    def read(self, path: str) -> bytes:
        try:
            content = self.inner.read(path)
        except SysFault as error:
            if error.why != "absent" and error.errno:
                self.box.unreadable[path] = errno.errorcode[error.errno]
                self._keep(path, b"")
            raise
        self._keep(path, content)
        return content

    def _keep(self, path: str, content: bytes) -> None:
        place = under(self.into, path)
        if place.exists() and place.stat().st_size:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def _keep_place(self, path: str) -> None:
        """That something is there, as a folder or an empty file, before anybody reads it."""
        place = under(self.into, path)
        if place.exists() or place.is_symlink():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            is_folder = bool(self.inner.names(path))
        except SysFault:
            is_folder = True  # it may not be listed
        place.mkdir() if is_folder else place.touch()

    def exists(self, path: str) -> bool:
        there = self.inner.exists(path)
        if there:
            self._keep_place(path)
        return there

    def names(self, folder: str) -> list[str]:
        names = self.inner.names(folder)
        for name in names:
            self._keep_place(f"{folder.rstrip('/')}/{name}")
        return names

    def link(self, path: str) -> str | None:
        target = self.inner.link(path)
        if target is not None:
            self.box.links[path] = target
        return target

    def glob(self, pattern: str) -> list[str]:
        found = self.inner.glob(pattern)
        for path in found:
            self._keep_place(path)
        return found

    def stat(self, path: str) -> Stat | None:
        return self.inner.stat(path)

    def set_attribute(self, path: str, value: bytes) -> None:
        self.inner.set_attribute(path, value)

    def put_file(self, path: str, content: bytes, stat: Stat | None = None) -> None:
        self.inner.put_file(path, content, stat)

    def remove_file(self, path: str) -> None:
        self.inner.remove_file(path)

    def remove_folder(self, path: str) -> None:
        self.inner.remove_folder(path)

    def make_durable(self, paths: Sequence[str]) -> None:
        self.inner.make_durable(paths)

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "") -> Ran:
        ran = self.inner.run(argv, timeout_s=timeout_s, stdin=stdin)
        self.box.commands[" ".join(argv)] = (ran.rc, ran.out)
        return ran

    def user_is_root(self) -> bool:
        return self.inner.user_is_root()
