"""A folder that behaves like a box: what is written is refused, rounded, coupled and granted as the kernel would.

`redline-box.json` in the folder says what a folder cannot: commands and their answers, what this box refuses, how many
huge pages it can grant, whether the user is root. A recording (`recording.py`) is such a folder.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from redline.node.kernel_rules import Rule, rule_for
from redline.node.live import LiveSys, fault
from redline.node.sys import Ran
from redline.node.tree import cpu_list, short_list

BOX_FILE = "redline-box.json"
_BRACKETED = re.compile(r"\[([^\]\s]+)\]")


@dataclass
class Box:
    """`label`: `synthetic` or `recorded`. `refuse` and `unreadable` map a pattern of paths to the name of an errno;
    `grants` maps a path to the most that it can become; `commands` maps a command line to [rc, stdout]."""

    label: str = "synthetic"
    root: bool = True
    readonly: list[str] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    grants: dict[str, int] = field(default_factory=dict)
    commands: dict[str, tuple[int, str]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    """Links that were recorded as what they lead to."""

    @classmethod
    def of(cls, root: Path) -> Box:
        """The box in a folder; one that refuses nothing when the folder does not say."""
        try:
            return cls(**json.loads((root / BOX_FILE).read_text()))
        except FileNotFoundError:
            return cls()

    def save(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        (root / BOX_FILE).write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")


class FakeSys(LiveSys):
    """A box under `root`. Nothing outside `root` is read, written or run."""

    kind: Literal["live", "fake", "recording"] = "fake"

    def __init__(self, root: Path, box: Box | None = None) -> None:
        super().__init__(root.resolve())
        self.box = box or Box.of(root)

    def at(self, path: str) -> Path:
        """Follows absolute links inside of the box, where the machine's own would lead out of it."""
        place = super().at(path)
        for _ in range(8):
            if not place.is_symlink() or not (target := os.readlink(place)).startswith("/"):  # noqa: PTH115
                return place
            place = super().at(target)
        raise fault(path, errno.ELOOP)

    def link(self, path: str) -> str | None:
        if path in self.box.links:
            return self.box.links[path]
        place = self.root / path.lstrip("/")
        return os.readlink(place) if place.is_symlink() else None  # noqa: PTH115

    def read(self, path: str) -> bytes:
        self._refuse(path, self.box.unreadable)
        return super().read(path)

    def set_attribute(self, path: str, value: bytes) -> None:
        if not self.at(path).is_file():
            raise fault(path, errno.ENOENT)
        if not self.box.root:
            raise fault(path, errno.EACCES)
        if any(path == prefix or path.startswith(prefix.rstrip("/") + "/") for prefix in self.box.readonly):
            raise fault(path, errno.EROFS)
        self._refuse(path, self.box.refuse)
        rule = rule_for(self._as_class_path(path))
        word = value.decode(errors="replace").strip()
        old = self.at(path).read_text()
        new = _chosen(path, old, word) if _BRACKETED.search(old) else self._taken(path, rule, word) + "\n"
        self.at(path).write_text(new)
        for effect in rule.effects:
            sibling = posixpath.join(posixpath.dirname(path), effect.sibling)
            if effect.value in ("", word) and self.at(sibling).exists():
                self.at(sibling).write_text(effect.becomes + "\n")
        if rule.form == "integers" and len(word.split()) > rule.count and path.startswith("/proc/sys/"):
            raise fault(path, errno.EIO, "the kernel took a part of it")

    def _refuse(self, path: str, refused: dict[str, str]) -> None:
        for pattern, name in refused.items():
            if fnmatchcase(path, pattern):
                raise fault(path, getattr(errno, name))

    def _as_class_path(self, path: str) -> str:
        """/sys/devices/…/net/eth0/mtu as /sys/class/net/eth0/mtu, so that a rule is written once."""
        return re.sub(r"^/sys/devices/(?!system/).*/(net|block)/", r"/sys/class/\1/", path)

    def _taken(self, path: str, rule: Rule, word: str) -> str:
        """What reads back after `word` was written. Raises SysFault where the kernel would refuse."""
        folder = posixpath.dirname(path)
        listing = posixpath.join(folder, rule.choices)
        if rule.choices and self.exists(listing) and word not in self.read(listing).decode().split():
            raise fault(path, errno.EINVAL)
        if rule.busy_unless:
            sibling, state, only = rule.busy_unless
            if word != only and self.read(posixpath.join(folder, sibling)).decode().strip() == state:
                raise fault(path, errno.EBUSY)
        if rule.form == "integers":
            return self._integers(path, rule, word)
        if rule.form == "cpu list":
            return self._cpus(path, cpu_list(word))
        if rule.form == "cpu mask":
            return _mask(path, word, len(self.at(path).read_text().strip().replace(",", "")))
        return word

    def _integers(self, path: str, rule: Rule, word: str) -> str:
        try:
            numbers = [int(part) for part in word.split()]
        except ValueError:
            raise fault(path, errno.EINVAL) from None
        if any(not rule.low <= number <= rule.high for number in numbers[: rule.count]) or not numbers:
            raise fault(path, errno.EINVAL)
        old = [int(part) for part in self.at(path).read_text().split()[: rule.count]]
        numbers = (numbers + old[len(numbers) :])[: rule.count]  # those not given stay, those too many are not read
        if rule.count == 2 and numbers[0] > numbers[1]:
            raise fault(path, errno.EINVAL)
        if rule.step == 0:
            numbers = [1 << (number - 1).bit_length() if number > 1 else number for number in numbers]
        else:
            numbers = [number - number % rule.step for number in numbers]
        if path in self.box.grants:
            numbers = [min(numbers[0], self.box.grants[path])]
        return "\t".join(map(str, numbers))

    def _cpus(self, path: str, cpus: list[int]) -> str:
        online = cpu_list(self.read("/sys/devices/system/cpu/online").decode())
        usable = [cpu for cpu in cpus if cpu in online]
        if not usable:
            raise fault(path, errno.EINVAL)
        return short_list(usable)

    def make_durable(self, paths: Sequence[str]) -> None:
        """A folder loses no power."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "") -> Ran:
        rc, out = self.box.commands.get(" ".join(argv), (127, ""))
        return Ran(tuple(argv), rc, out, "" if rc != 127 else f"{argv[0]}: command not found")

    def user_is_root(self) -> bool:
        return self.box.root


def _chosen(path: str, old: str, word: str) -> str:
    """`always [madvise] never` with another word in brackets."""
    bare = _BRACKETED.sub(r"\1", old)
    if word not in bare.split():
        raise fault(path, errno.EINVAL)
    return re.sub(rf"(?<!\S){re.escape(word)}(?!\S)", f"[{word}]", bare)


def _mask(path: str, word: str, digits: int) -> str:
    """Hexadecimal, as wide as before, a comma every eight digits."""
    try:
        number = int(word.replace(",", ""), 16)
    except ValueError:
        raise fault(path, errno.EINVAL) from None
    text = f"{number:0{max(digits, 1)}x}"
    head = len(text) % 8
    return ",".join(([text[:head]] if head else []) + [text[at : at + 8] for at in range(head, len(text), 8)])
