"""A box that is asked the same thing once: commands and listings are kept while one question is being answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redline.node.sys import Ran, Stat, Sys


class Remembering:
    """Wraps `inner` for the length of one audit. Values are always read anew; writes are passed on."""

    def __init__(self, inner: Sys) -> None:
        self.inner = inner
        self.kind = inner.kind
        self._kept: dict[tuple[Any, ...], Any] = {}

    def _once(self, key: tuple[Any, ...], ask: Any) -> Any:
        if key not in self._kept:
            self._kept[key] = ask()
        return self._kept[key]

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def exists(self, path: str) -> bool:
        return self.inner.exists(path)

    def names(self, folder: str) -> list[str]:
        found: list[str] = self._once(("names", folder), lambda: self.inner.names(folder))
        return found

    def link(self, path: str) -> str | None:
        return self.inner.link(path)

    def glob(self, pattern: str) -> list[str]:
        found: list[str] = self._once(("glob", pattern), lambda: self.inner.glob(pattern))
        return found

    def set_attribute(self, path: str, value: bytes) -> None:
        self.inner.set_attribute(path, value)

    def stat(self, path: str) -> Stat | None:
        return self.inner.stat(path)

    def put_file(self, path: str, content: bytes, stat: Stat | None = None) -> None:
        self.inner.put_file(path, content, stat)

    def remove_file(self, path: str) -> None:
        self.inner.remove_file(path)

    def remove_folder(self, path: str) -> None:
        self.inner.remove_folder(path)

    def make_durable(self, paths: Sequence[str]) -> None:
        self.inner.make_durable(paths)

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "") -> Ran:
        ran: Ran = self._once(("run", *argv, stdin), lambda: self.inner.run(argv, timeout_s=timeout_s, stdin=stdin))
        return ran

    def user_is_root(self) -> bool:
        return self.inner.user_is_root()
