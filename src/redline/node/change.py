"""One change of the box: an attribute of the kernel, a file on disk, or a command that rewrites files.

A change is plain data, so that the journal holds everything that is needed to undo it, also for a later redline whose
table of settings has changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redline.node.sys import Stat, Sys, SysFault
from redline.node.tree import cpu_list
from redline.node.tunables.tunable import Op

Kind = Literal["attribute", "file", "command"]


@dataclass(frozen=True)
class Change:
    """`before` and `after` are bytes as read and as written; None: no such file. For an attribute `after` is the value
    alone, while `before` is what a read gives (`always [madvise] never`).

    `coupled`: other attributes that the kernel changes together with this one. A command has `argv`, and `covers`: the
    files that it rewrites, whose bytes are kept; `undo_argv` is run once they are back (nothing when empty), and
    `redo_argv` instead, when somebody rewrote the same files since.
    """

    kind: Kind
    path: str
    before: bytes | None
    after: bytes | None
    tunable_ids: tuple[str, ...]
    coupled: tuple[str, ...] = ()
    op: Op = "equals"
    risk: int = 0
    owners: tuple[str, ...] = ()
    needs_reboot: bool = False
    argv: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    undo_argv: tuple[str, ...] = ()
    redo_argv: tuple[str, ...] = ()
    mode: int = 0
    """Of a file that is created; 0: 0644."""
    arguments: tuple[str, ...] = ()
    """What the kernel will have been given at the next boot because of it."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path whose content this change may alter."""
        if self.kind == "command":
            return self.covers
        return (self.path, *(path for path in self.coupled if path != self.path))

    @property
    def label(self) -> str:
        return " ".join(self.argv) if self.kind == "command" else self.path

    def to_json(self) -> dict[str, Any]:
        fields = {**self.__dict__, "before": as_text(self.before), "after": as_text(self.after)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> Change:
        known = {name: value for name, value in fields.items() if name in Change.__dataclass_fields__}
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in known.items()
        }
        return Change(**{**plain, "before": as_bytes(plain["before"]), "after": as_bytes(plain["after"])})


def as_text(content: bytes | None) -> str | None:
    """Bytes as text that gives them back exactly, whatever they are, and that a person can read if they are ASCII."""
    return None if content is None else content.decode("latin-1")


def as_bytes(content: str | None) -> bytes | None:
    return None if content is None else content.encode("latin-1")


@dataclass(frozen=True)
class Image:
    """What one path held at one time. `sha` '': there was no such file. `content` only where it is needed later."""

    sha: str
    stat: Stat | None = None
    content: bytes | None = None

    def same(self, other: Image) -> bool:
        return self.sha == other.sha and self.stat == other.stat

    def to_json(self) -> list[Any]:
        stat = None if self.stat is None else [self.stat.mode, self.stat.uid, self.stat.gid]
        return [self.sha, stat, as_text(self.content)]

    @staticmethod
    def from_json(fields: list[Any]) -> Image:
        sha, stat, content = fields
        return Image(sha, None if stat is None else Stat(*stat), as_bytes(content))


Images = dict[str, Image]


def image(sys: Sys, path: str, kind: Kind) -> Image:
    """`path` as it is now. An attribute that cannot be read raises SysFault; a file that is not there is an answer."""
    if kind == "attribute":
        content = sys.read(path)
        return Image(digest(content), None, content)
    stat = sys.stat(path)
    if stat is None:
        return Image("")
    content = sys.read(path)
    return Image(digest(content), stat, content)


def images(sys: Sys, change: Change) -> Images:
    """Everything that `change` may alter. A coupled attribute that this kernel does not have is left out."""
    found = {}
    for path in change.paths:
        try:
            found[path] = image(sys, path, change.kind)
        except SysFault as fault:
            if path == change.path or fault.why != "absent":
                raise
    return found


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def value_of(raw: bytes) -> str:
    """The value that a write would take: the bracketed word of a choice, else the words with single blanks."""
    text = raw.decode("latin-1").strip()
    chosen = re.search(r"\[([^\]]+)\]", text)
    return chosen[1] if chosen else " ".join(text.split())


def settled(change: Change, raw: bytes) -> bool:
    """Whether `raw`, read back, is what the attribute was set to. The kernel may spell a number in its own way, and may
    give more where at least so much was asked for."""
    want, now = value_of(change.after or b""), value_of(raw)
    if want == now or _words(change.path, want) == _words(change.path, now):
        return True
    have, asked = _number(now), _number(want)
    if change.op == "within" and now:
        return set(cpu_list(now)) <= set(cpu_list(want))
    if have is None or asked is None:
        return False
    return have >= asked if change.op == "at least" else have <= asked if change.op == "at most" else have == asked


def between(before: bytes, after: bytes, now: bytes) -> bool:
    """Whether a number was moved from `before` towards `after` and not all the way: the kernel gave a part."""
    low, high, have = (_number(value_of(raw)) for raw in (before, after, now))
    if low is None or high is None or have is None:
        return False
    return min(low, high) <= have <= max(low, high)


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        # `0` in front is decimal here
        return int(text) if text.isdigit() else None


def _words(path: str, text: str) -> object:
    """Text by which two spellings of the same value are equal: CPU masks, CPU lists, switches of modules."""
    if path.endswith(("_cpus", "smp_affinity", "cpumask")) and re.fullmatch(r"[0-9a-fA-F,]+", text):
        return int(text.replace(",", ""), 16)
    if path.endswith("_list") and re.fullmatch(r"[0-9,-]+", text):
        return cpu_list(text)
    if path.startswith("/sys/module/"):
        return {"Y": "1", "N": "0", "y": "1", "n": "0"}.get(text, text)
    return text.split()
