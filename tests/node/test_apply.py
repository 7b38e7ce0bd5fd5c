from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redline.errors import ApplyFailed, ChangedSince, JournalFault, NodeBusy, UsageError
from redline.node.apply import apply, resume
from redline.node.change import Change
from redline.node.fake import FakeSys
from redline.node.journal import Journal
from redline.node.revert import revert
from redline.node.transaction import of, transactions
from tests.node.folder_box import folder_box, state_hash
from tests.node.memory_box import PAGES, THP, VM, MemoryBox

CONF = "/etc/sysctl.d/90-redline.conf"
SWAPPINESS = f"{VM}swappiness"


def attribute(box: MemoryBox, path: str, value: str) -> Change:
    return Change("attribute", path, box.read(path), value.encode(), ("x",))


def some(box: MemoryBox) -> list[Change]:
    return [
        attribute(box, f"{VM}swappiness", "10"),
        attribute(box, THP, "madvise"),
        Change("file", CONF, None, b"vm.swappiness = 10\n", ("x",), mode=0o600),
        Change("file", "/etc/sysctl.conf", box.read("/etc/sysctl.conf"), None, ("x",)),
        attribute(box, PAGES, "8"),
    ]


def test_everything_holds_and_is_written_down(tmp_path: Path) -> None:
    box = MemoryBox()
    done = apply(box, some(box), tmp_path)
    assert done.status == "applied"
    assert box.attributes[THP] == b"always [madvise] never\n"
    assert box.files[CONF][0] == b"vm.swappiness = 10\n"
    assert box.files[CONF][1].mode == 0o600
    assert "/etc/sysctl.conf" not in box.files
    whats = [record["what"] for record in Journal(tmp_path / f"{done.txn}.jsonl").records]
    assert whats == ["begin", *["intent", "done"] * 5, "end"]


def test_the_journal_is_ahead_of_every_write(tmp_path: Path) -> None:
    box = MemoryBox()
    seen = []

    def step(_what: str) -> None:
        last = Journal(next(tmp_path.glob("*.jsonl"))).records[-1]
        seen.append((last["what"], last["i"]))

    box.step = step
    apply(box, some(box), tmp_path)
    assert seen == [("intent", index) for index in range(5)]


@pytest.mark.parametrize("why", ["EPERM", "EINVAL", "EIO", "EROFS", "a part"])
def test_a_change_that_does_not_hold_takes_the_others_back(tmp_path: Path, why: str) -> None:
    box = MemoryBox()
    was = box.digest()
    if why == "a part":
        box.most[PAGES] = 5
    else:
        box.refuse[PAGES] = why
    with pytest.raises(ApplyFailed, match="as it was before") as raised:
        apply(box, some(box), tmp_path)
    assert PAGES in raised.value.why
    assert box.digest() == was
    assert next(transactions(tmp_path)).status == "rolled back"
    box.refuse.clear()
    box.most.clear()
    assert apply(box, some(box), tmp_path).status == "applied", "and nothing is in the way of another try"


def test_what_cannot_be_put_back_stays_open(tmp_path: Path) -> None:
    box = MemoryBox()
    was = box.digest()
    box.refuse[PAGES] = "EPERM"

    def step(what: str) -> None:
        if what == f"set {PAGES}":
            box.refuse[THP] = "EPERM"

    box.step = step
    with pytest.raises(ApplyFailed, match="not everything could be put back") as raised:
        apply(box, some(box), tmp_path)
    assert THP in raised.value.what
    with pytest.raises(NodeBusy, match="cut short"):
        apply(box, some(box), tmp_path)
    box.step = lambda _what: None
    box.refuse.clear()
    revert(box, tmp_path)
    assert box.digest() == was


def test_not_root_changes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    box = MemoryBox()
    box.root = False
    with pytest.raises(ApplyFailed, match="root"):
        apply(box, some(box), tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_without_a_place_for_the_journal_nothing_is_changed() -> None:
    box = MemoryBox()
    was = box.digest()
    with pytest.raises(JournalFault):
        apply(box, some(box), Path("/proc/nowhere"))
    assert box.digest() == was


def test_a_disk_that_fills_up_takes_the_others_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = MemoryBox()
    was = box.digest()
    real, count = Journal._append, 0

    def append(journal: Journal, line: bytes) -> None:
        nonlocal count
        count += 1
        if count > 6:
            real(journal, line[:10])
            raise OSError(28, "No space left on device")
        real(journal, line)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_append", append)
        with pytest.raises(ApplyFailed, match="as it was before"):
            apply(box, some(box), tmp_path)
    assert box.digest() == was
    assert next(transactions(tmp_path)).status == "unfinished", "nobody could write down that it was undone"
    revert(box, tmp_path)
    assert box.digest() == was


def test_a_box_that_changed_since_the_plan(tmp_path: Path) -> None:
    box = MemoryBox()
    changes = some(box)
    box.attributes[f"{VM}swappiness"] = b"30\n"
    with pytest.raises(ChangedSince, match="swappiness"):
        apply(box, changes, tmp_path)
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_box_that_changes_while_it_is_being_changed(tmp_path: Path) -> None:
    box = MemoryBox()
    changes = some(box)

    def step(what: str) -> None:
        if what == f"put {CONF}":
            box.attributes[PAGES] = b"4\n"

    box.step = step
    with pytest.raises(ApplyFailed, match="did not hold"):
        apply(box, changes, tmp_path)
    assert box.attributes[PAGES] == b"4\n", "somebody else's"
    assert box.attributes[f"{VM}swappiness"] == b"60\n"


def test_a_daemon_that_writes_back(tmp_path: Path) -> None:
    class Stubborn(MemoryBox):
        def set_attribute(self, path: str, value: bytes) -> None:
            super().set_attribute(path, value)
            if path == PAGES:
                self.attributes[path] = b"3\n"

    box = Stubborn()
    was = box.digest()
    with pytest.raises(ApplyFailed) as raised:
        apply(box, some(box), tmp_path)
    assert "8 was written, 3 is what it holds" in raised.value.why
    assert box.digest() == was


def test_a_daemon_that_writes_back_a_moment_later(tmp_path: Path) -> None:
    """The value holds when it is read back, and not any more when everything is done."""

    class Daemon(FakeSys):
        def put_file(self, path: str, content: bytes, stat: object = None) -> None:
            super().put_file(path, content, stat)  # type: ignore[arg-type]
            super().set_attribute(SWAPPINESS, b"60")

    folder_box(tmp_path / "box")
    was, box = state_hash(tmp_path / "box"), Daemon(tmp_path / "box")
    changes = [
        Change("attribute", SWAPPINESS, box.read(SWAPPINESS), b"10", ("vm.swappiness",), owners=("tuned",)),
        Change("file", "/etc/sysctl.d/90-x.conf", None, b"vm.swappiness = 10\n", ("vm.swappiness",)),
    ]
    with pytest.raises(ApplyFailed, match="everything is as it was before") as raised:
        apply(box, changes, tmp_path / "state")
    assert "was 10 and is 60 again" in raised.value.why
    assert "tuned may" in raised.value.why
    assert state_hash(tmp_path / "box") == was
    assert next(transactions(tmp_path / "state")).status == "rolled back"


def test_a_command_that_fails_gives_its_files_back(tmp_path: Path) -> None:
    box = MemoryBox()
    was = box.digest()
    config = "/boot/grub/grub.cfg"

    def half() -> int:
        box.put_file(config, b"half")
        return 1

    box.commands[("update-grub",)] = half
    box.commands[("tell",)] = lambda: 0
    changes = [
        Change("command", "", None, None, ("x",), argv=("tell",), undo_argv=("tell",)),
        Change("command", "", None, None, ("x",), argv=("update-grub",), covers=(config,)),
    ]
    with pytest.raises(ApplyFailed) as raised:
        apply(box, changes, tmp_path)
    assert "update-grub ended with 1" in raised.value.why
    assert box.digest() == was
    assert box.ran == [("tell",), ("update-grub",), ("tell",)], "who was told of files is told again"


def test_interrupted_by_hand(tmp_path: Path) -> None:
    box = MemoryBox()
    was = box.digest()

    def step(what: str) -> None:
        if what == f"put {CONF}":
            raise KeyboardInterrupt

    box.step = step
    with pytest.raises(KeyboardInterrupt):
        apply(box, some(box), tmp_path)
    assert box.digest() == was


def test_nothing_to_do_and_nothing_to_resume(tmp_path: Path) -> None:
    box = MemoryBox()
    with pytest.raises(UsageError):
        apply(box, [], tmp_path)
    done = apply(box, some(box), tmp_path)
    with pytest.raises(UsageError, match="applied"):
        resume(box, tmp_path, done.txn)
    with pytest.raises(UsageError, match="no transaction"):
        resume(box, tmp_path, "2001")


KILLED = """
import os, signal, sys
from pathlib import Path
from redline.node.apply import apply
from redline.node.fake import Box, FakeSys
from tests.node.test_apply import folder_changes

class Mortal(FakeSys):
    left = int(sys.argv[2])
    def count(self):
        Mortal.left -= 1
        if Mortal.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def set_attribute(self, path, value):
        self.count(); super().set_attribute(path, value); self.count()
    def put_file(self, path, content, stat=None):
        self.count(); super().put_file(path, content, stat); self.count()

box = Mortal(Path(sys.argv[1]))
apply(box, folder_changes(box), Path(sys.argv[1]) / "var/lib/redline/node")
"""


def folder_changes(box: object) -> list[Change]:
    read = box.read  # type: ignore[attr-defined]
    return [
        Change("attribute", f"{VM}swappiness", read(f"{VM}swappiness"), b"10", ("a",)),
        Change(
            "attribute", f"{VM}dirty_bytes", read(f"{VM}dirty_bytes"), b"1048576", ("b",), coupled=(f"{VM}dirty_ratio",)
        ),
        Change("file", "/etc/default/grub", read("/etc/default/grub"), b"x=1\n", ("d",)),
    ]


@pytest.mark.parametrize("fatal", range(7))
def test_killed_for_real_and_reverted(tmp_path: Path, fatal: int) -> None:
    box = folder_box(tmp_path)
    was = state_hash(tmp_path)
    argv = [sys.executable, "-c", KILLED, str(tmp_path), str(fatal)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == (-signal.SIGKILL if fatal < 6 else 0), done.stderr
    state = tmp_path / "var/lib/redline/node"
    assert of(Journal(next(state.glob("*.jsonl")))).status == ("unfinished" if fatal < 6 else "applied")
    revert(box, state)
    assert state_hash(tmp_path) == was


def test_what_a_killed_write_left_beside_its_file_goes(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    was = state_hash(tmp_path)
    state = tmp_path / "var/lib/redline/node"
    apply(box, folder_changes(box), state)
    (tmp_path / f"etc/default/.grub.redline-{os.getpid() + 1}").write_text("half of it")
    revert(box, state)
    assert state_hash(tmp_path) == was
