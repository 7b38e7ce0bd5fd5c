"""What the modules of this folder take and give, and a box as it would be with one more file."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from redline.node.change import Change
from redline.node.sys import Stat, Sys, SysFault
from redline.node.tunables.tunable import Place, Tunable

HEAD = "# Written by `redline node apply`; `redline node revert` takes it back.\n"


@dataclass(frozen=True)
class Setting:
    """One place of one row, and the value that it shall have after every boot."""

    tunable: Tunable
    place: Place
    value: str

    @property
    def key(self) -> str:
        return self.tunable.persist_key


@dataclass
class Form:
    """`warnings`: what a person has to know or do, because no file of redline's can."""

    changes: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, other: Form) -> None:
        self.changes += other.changes
        self.warnings += other.warnings


def behind(sys: Sys, path: str) -> str:
    """The file that `path` stands for: a link must not be replaced by what it leads to."""
    for _ in range(8):
        target = sys.link(path)
        if target is None:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path


def file_change(sys: Sys, path: str, after: bytes | None, settings: Sequence[Setting], **more: Any) -> list[Change]:
    """The change of one file; [] when it holds that already."""
    path = behind(sys, path)
    try:
        before = sys.read(path) if sys.stat(path) is not None else None
    except SysFault as fault:
        if fault.why != "absent":
            raise
        before = None
    if before == after:
        return []
    return [Change("file", path, before, after, ids(settings), **{"risk": risk(settings), **more})]


def ids(settings: Sequence[Setting]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(setting.tunable.id for setting in settings))


def risk(settings: Sequence[Setting]) -> int:
    return max((setting.tunable.risk for setting in settings), default=0)


class WithFile:
    """`inner` with one file more, or with other content in it, to ask the box's own rules of precedence. Reads only."""

    def __init__(self, inner: Sys, path: str, content: str) -> None:
        self._inner, self._path, self._content = inner, path, content.encode()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, path: str) -> bytes:
        return self._content if path == self._path else self._inner.read(path)

    def exists(self, path: str) -> bool:
        return path == self._path or self._inner.exists(path)

    def names(self, folder: str) -> list[str]:
        mine = [posixpath.basename(self._path)] if posixpath.dirname(self._path) == folder.rstrip("/") else []
        return sorted({*self._inner.names(folder), *mine})

    def stat(self, path: str) -> Stat | None:
        return Stat(0o644, 0, 0) if path == self._path else self._inner.stat(path)


Wins = Callable[[Any, Setting], bool]
"""Whether the box, as it would be, gives the setting its value at boot."""


def winning_path(sys: Sys, names: Sequence[str], content: str, settings: Sequence[Setting], wins: Wins) -> str:
    """The first of `names` under which the file has the last word on every setting; the last one when none has."""
    for path in names:
        if all(wins(WithFile(sys, path, content), setting) for setting in settings):
            return path
    return names[-1]


def own_file(sys: Sys, names: Sequence[str]) -> str:
    """The one of `names` that redline wrote earlier; the first when there is none."""
    return next((path for path in names if sys.stat(path) is not None), names[0])


def old_lines(sys: Sys, path: str) -> list[str]:
    """Lines of redline's own file that say something."""
    try:
        content = sys.read(path).decode(errors="replace")
    except SysFault:
        return []
    return [line for line in content.splitlines() if line.strip() and not line.startswith("#")]
