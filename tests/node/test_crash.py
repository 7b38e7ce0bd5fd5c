"""Whenever redline is ended, and wherever its journal is cut: what is left can be taken back, or carried to the end."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redline.errors import RedlineError
from redline.node import apply as applying
from redline.node.apply import apply, resume
from redline.node.change import Change
from redline.node.fake import Box, FakeSys
from redline.node.journal import Journal, decode
from redline.node.revert import revert
from redline.node.sys import Stat
from redline.node.transaction import of
from tests.node.folder_box import folder_box, row, state_hash
from tests.node.memory_box import PAGES, THP, VM, MemoryBox
from tests.node.test_plan import FRAME, HUGE, IOMMU, planned

GRUB = ("update-grub",)


class Killed(BaseException):
    """Stands for kill -9: nothing of redline runs after it."""


@pytest.fixture
def state() -> Iterator[Path]:
    """In memory where the box has that: thousands of fsyncs are waited for."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def box() -> MemoryBox:
    made = MemoryBox()

    def update_grub() -> int:
        content = b"linux /vmlinuz quiet" + (b" x=1" if "/etc/default/grub.d/9.cfg" in made.files else b"") + b"\n"
        made.put_file("/boot/grub/grub.cfg", content)
        return 0

    made.commands[GRUB] = update_grub
    return made


def attribute(path: str, value: str, before: bytes, coupled: tuple[str, ...] = ()) -> Change:
    return Change("attribute", path, before, value.encode(), (path.rpartition("/")[2],), coupled=coupled)


def changes(one: MemoryBox) -> list[Change]:
    grub = "/boot/grub/grub.cfg"
    return [
        attribute(f"{VM}swappiness", "10", one.read(f"{VM}swappiness")),
        attribute(THP, "madvise", one.read(THP)),
        attribute(f"{VM}dirty_bytes", "1048576", one.read(f"{VM}dirty_bytes"), (f"{VM}dirty_ratio",)),
        Change("attribute", PAGES, one.read(PAGES), b"8", ("pages",), op="at least"),
        Change("file", "/etc/sysctl.d/90-redline.conf", None, b"vm.swappiness = 10\n", ("s",)),
        Change("file", "/etc/default/grub", one.read("/etc/default/grub"), b"other\n", ("g",)),
        Change("file", "/etc/default/grub.d/9.cfg", None, b"x=1\n", ("g",)),
        Change("command", "", None, None, ("g",), argv=GRUB, covers=(grub,), redo_argv=GRUB),
    ]


class History:
    """Runs one apply to its end, and keeps the box as it was at every point at which it could have been ended."""

    def __init__(self, state: Path, fails: str = "") -> None:
        self.box = box()
        self.states: list[tuple[int, MemoryBox]] = []
        """(bytes in the journal, the box)"""
        self.was = self.box.digest()
        if fails:
            self.box.most[fails] = 5
        planned = changes(self.box)
        self.box.step = lambda _what: self._keep(state)
        original = Journal._append

        def append(journal: Journal, line: bytes) -> None:
            self._keep(state)
            original(journal, line)
            self._keep(state)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "_append", append)
            try:
                apply(self.box, planned, state)
            except RedlineError:
                assert fails
        self._keep(state)
        self.journal = next(state.glob("*.jsonl"))
        self.content = self.journal.read_bytes()

    def _keep(self, state: Path) -> None:
        found = list(state.glob("*.jsonl"))
        self.states.append((found[0].stat().st_size if found else 0, self.at(self.box)))

    @staticmethod
    def at(one: MemoryBox) -> MemoryBox:
        made = box()
        made.attributes, made.files, made.most = dict(one.attributes), dict(one.files), dict(one.most)
        return made


@pytest.mark.parametrize("fails", ["", PAGES, f"{VM}dirty_bytes"])
def test_ended_between_any_two_steps_and_reverted(state: Path, fails: str) -> None:
    history = History(state, fails)
    assert len({one.digest() for _size, one in history.states}) > 3, "the box went through several states"
    for size, one in history.states:
        left = History.at(one)
        history.journal.write_bytes(history.content[:size])
        if size:
            revert(left, state)
        assert left.digest() == history.was, f"journal of {size} bytes"


@pytest.mark.parametrize("fails", ["", PAGES])
def test_journal_cut_at_every_byte_and_reverted(state: Path, fails: str) -> None:
    """A line is being written while the box stands still: every part of it may be on disk."""
    history = History(state, fails)
    before = {}
    for size, one in history.states:
        before[size] = one  # the last state that the box had with so much written
    sizes = sorted(before)
    first = history.content.index(b"\n")  # before it is whole there is nothing to undo, wherever it is cut
    for cut in [*range(1, first, 61), *range(first, len(history.content), 3 if fails else 1)]:
        whole = max(size for size in sizes if size <= cut)
        left = History.at(before[whole])
        history.journal.write_bytes(history.content[:cut])
        assert not decode(history.content[:cut]).damaged
        revert(left, state)
        assert left.digest() == history.was, f"cut at {cut}"
        after = Journal(history.journal)
        assert of(after).status in ("empty", "reverted", "rolled back"), "and the journal goes on after the cut"


def test_later_lines_that_a_disk_lost_after_saying_it_had_them(state: Path) -> None:
    """The first line alone is enough to bring everything back."""
    history = History(state)
    first = history.content.index(b"\n") + 1
    for cut in range(first, len(history.content), 97):
        left = History.at(history.states[-1][1])
        history.journal.write_bytes(history.content[:cut])
        revert(left, state)
        held = {path for path in left.attributes if left.attributes[path] != box().attributes[path]}
        assert not held
        assert "/etc/sysctl.d/90-redline.conf" not in left.files


def test_ended_between_any_two_steps_and_gone_on_with(state: Path) -> None:
    history = History(state)
    wanted = history.states[-1][1].digest()
    for size, one in history.states:
        left = History.at(one)
        history.journal.write_bytes(history.content[:size])
        if not size or of(Journal(history.journal)).status != "unfinished":
            continue
        assert resume(left, state).status == "applied"
        assert left.digest() == wanted
        revert(left, state)
        assert left.digest() == history.was


def test_ended_while_reverting_at_every_step(state: Path) -> None:
    history = History(state)
    steps = 0
    while True:
        left = History.at(history.states[-1][1])
        history.journal.write_bytes(history.content)
        countdown = steps

        def step(_what: str = "") -> None:
            nonlocal countdown
            countdown -= 1
            if countdown < 0:
                raise Killed

        original = Journal._append

        def append(journal: Journal, line: bytes, *, write: Callable[[Journal, bytes], None] = original) -> None:
            step()
            write(journal, line[: len(line) // 2])
            step()
            write(journal, line[len(line) // 2 :])

        left.step = step
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "_append", append)
            try:
                revert(left, state)
            except Killed:
                pass
            else:
                break
        left.step = lambda _what: None
        revert(left, state)
        assert left.digest() == history.was, f"ended at step {steps}"
        steps += 1
    assert steps > 30


def test_both_of_a_pair_at_zero_come_back(state: Path) -> None:
    one = box()
    one.attributes[f"{VM}dirty_ratio"] = b"0\n"
    was = one.digest()
    pair = attribute(f"{VM}dirty_bytes", "1048576", b"0\n", (f"{VM}dirty_ratio",))
    apply(one, [pair], state)
    assert one.attributes[f"{VM}dirty_bytes"] == b"1048576\n"
    for fatal in range(3):
        left = History.at(one)
        count = fatal

        def step(_what: str) -> None:
            nonlocal count
            if count == 0:
                raise Killed
            count -= 1

        left.step = step
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(applying, "STATE_DIR", state)
            journal = next(state.glob("*.jsonl"))
            content = journal.read_bytes()
            try:
                revert(left, state)
            except Killed:
                left.step = lambda _what: None
                revert(left, state)
            assert left.digest() == was
            journal.write_bytes(content)


def test_ended_at_every_step_on_a_box_in_a_folder(state: Path) -> None:
    """A whole plan of the table's own rows: values, a pair, files of four kinds, a command."""
    steps = 0
    while True:
        root, journals = state / str(steps) / "box", state / str(steps) / "journals"
        folder_box(root, commands={"update-grub": (0, "")})
        was = state_hash(root)
        left = steps

        def step() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        class Mortal(FakeSys):
            def set_attribute(self, path: str, value: bytes, *, count: Callable[[], None] = step) -> None:
                count()
                super().set_attribute(path, value)
                count()

            def put_file(
                self, path: str, content: bytes, stat: Stat | None = None, *, count: Callable[[], None] = step
            ) -> None:
                count()
                super().put_file(path, content, stat)
                count()

        original = Journal._append

        def append(
            journal: Journal,
            line: bytes,
            *,
            write: Callable[[Journal, bytes], None] = original,
            count: Callable[[], None] = step,
        ) -> None:
            write(journal, line[: len(line) // 2])
            count()
            write(journal, line[len(line) // 2 :])

        box_ = Mortal(root, Box(commands={"update-grub": (0, "")}))
        made = planned(box_, row("vm.swappiness", "10"), HUGE, row("vm.dirty_bytes", "1048576"), IOMMU, FRAME)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "_append", append)
            try:
                apply(box_, made.changes, journals)
                break
            except Killed:
                pass
        revert(FakeSys(root, box_.box), journals)
        assert state_hash(root) == was, f"ended at step {steps}"
        steps += 1
    assert steps > 30
