from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import ApplyFailed, ChangedSince, JournalDamaged, UsageError
from redline.node.apply import apply
from redline.node.change import Change
from redline.node.coupled import partners
from redline.node.journal import Journal
from redline.node.lock import boot_id
from redline.node.revert import KINDS, revert, revert_all
from redline.node.sys import Stat
from redline.node.transaction import transactions
from redline.node.verify import verify
from tests.node.folder_box import folder_box
from tests.node.memory_box import PAGES, THP, VM, MemoryBox
from tests.node.test_apply import CONF, attribute, some

SWAPPINESS = f"{VM}swappiness"


@pytest.fixture
def box() -> MemoryBox:
    return MemoryBox()


def test_former_bytes_modes_and_owners(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    changes = [*some(box), Change("file", "/etc/default/grub", box.read("/etc/default/grub"), b"new", ("x",))]
    done = apply(box, changes, tmp_path)
    assert box.files["/etc/default/grub"][1] == Stat(0o640, 0, 7)
    result = revert(box, tmp_path, done.txn)
    assert box.digest() == was
    assert len(result.undone) == len(changes)
    again = revert(box, tmp_path, done.txn)
    assert again.before == "reverted"
    assert again.undone == []


@pytest.mark.parametrize("what", ["attribute", "file", "mode"])
def test_what_a_third_party_changed_stops_all_of_it(tmp_path: Path, box: MemoryBox, what: str) -> None:
    apply(box, some(box), tmp_path)
    if what == "attribute":
        box.attributes[SWAPPINESS] = b"33\n"
    elif what == "file":
        box.files[CONF] = (b"theirs\n", box.files[CONF][1])
    else:
        box.files[CONF] = (box.files[CONF][0], Stat(0o666, 0, 0))
    theirs = box.digest()
    with pytest.raises(ChangedSince) as raised:
        revert(box, tmp_path)
    assert box.digest() == theirs, "nothing was touched"
    where = SWAPPINESS if what == "attribute" else CONF
    assert where in raised.value.what
    if what == "attribute":
        assert "redline left 10, it is 33 now" in raised.value.what


def test_force_overwrites_and_keeps_what_it_overwrote(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    done = apply(box, some(box), tmp_path)
    box.files[CONF] = (b"theirs\n", box.files[CONF][1])
    box.attributes[SWAPPINESS] = b"33\n"
    revert(box, tmp_path, force=KINDS)
    assert box.digest() == was
    records = Journal(tmp_path / f"{done.txn}.jsonl").records
    kept = [record["now"] for record in records if record["what"] == "overwrites"]
    assert any("theirs\n" in str(one) or "theirs" in str(one) for one in kept)


def test_leave_keeps_theirs_and_reverts_the_rest(tmp_path: Path, box: MemoryBox) -> None:
    apply(box, some(box), tmp_path)
    box.attributes[SWAPPINESS] = b"33\n"
    result = revert(box, tmp_path, leave=True)
    assert [one.path for one in result.left] == [SWAPPINESS]
    assert box.attributes[SWAPPINESS] == b"33\n"
    assert box.attributes[THP] == b"[always] madvise never\n"
    assert CONF not in box.files


def test_a_third_party_that_put_it_back_has_done_our_work(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    apply(box, some(box), tmp_path)
    box.attributes[SWAPPINESS] = b"60\n"
    revert(box, tmp_path)
    assert box.digest() == was


def test_the_partner_of_a_pair_counts_too(tmp_path: Path, box: MemoryBox) -> None:
    pair = Change("attribute", f"{VM}dirty_bytes", b"0\n", b"65536", ("x",), coupled=(f"{VM}dirty_ratio",))
    apply(box, [pair], tmp_path)
    box.set_attribute(f"{VM}dirty_ratio", b"40")
    with pytest.raises(ChangedSince, match="dirty_"):
        revert(box, tmp_path)


def test_stacked_transactions(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    first = apply(box, [attribute(box, SWAPPINESS, "10")], tmp_path)
    second = apply(box, [attribute(box, SWAPPINESS, "5"), attribute(box, THP, "never")], tmp_path)
    with pytest.raises(ChangedSince, match=f"transaction {second.txn}: revert that first"):
        revert(box, tmp_path, first.txn)
    results = revert_all(box, tmp_path)
    assert [one.txn for one in results] == [second.txn, first.txn]
    assert box.digest() == was
    assert revert_all(box, tmp_path) == []


def test_one_path_changed_twice_in_a_transaction(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    path = f"{VM}dirty_bytes"
    changes = [
        Change("attribute", path, b"0\n", b"65536", ("x",), coupled=(f"{VM}dirty_ratio",)),
        Change("attribute", f"{VM}dirty_ratio", b"20\n", b"7", ("y",), coupled=(path,)),
    ]
    apply(box, changes, tmp_path)
    assert box.attributes[f"{VM}dirty_ratio"] == b"7\n"
    revert(box, tmp_path)
    assert box.digest() == was


def test_a_daemon_that_writes_the_value_is_named(tmp_path: Path, box: MemoryBox) -> None:
    box.attributes["/proc/77/comm"] = b"tuned\n"
    change = Change("attribute", SWAPPINESS, b"60\n", b"10", ("x",), owners=("tuned",))
    apply(box, [change], tmp_path)
    box.attributes[SWAPPINESS] = b"30\n"
    with pytest.raises(ChangedSince, match="tuned runs here"):
        revert(box, tmp_path)


def test_after_a_reboot_it_says_so(tmp_path: Path, box: MemoryBox, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(box, [attribute(box, SWAPPINESS, "10")], tmp_path)
    box.attributes[SWAPPINESS] = b"30\n"
    monkeypatch.setattr("redline.node.revert.boot_id", lambda: "another" + boot_id())
    with pytest.raises(ChangedSince, match="started again"):
        revert(box, tmp_path)


def test_a_device_that_is_gone_is_no_obstacle(tmp_path: Path, box: MemoryBox) -> None:
    apply(box, some(box), tmp_path)
    del box.attributes[PAGES]
    result = revert(box, tmp_path)
    assert result.gone == [PAGES]
    assert box.attributes[SWAPPINESS] == b"60\n"


def test_a_file_that_was_removed_comes_back_with_mode_and_owner(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    apply(box, [Change("file", "/etc/default/grub", box.read("/etc/default/grub"), None, ("x",))], tmp_path)
    assert "/etc/default/grub" not in box.files
    revert(box, tmp_path)
    assert box.digest() == was


def test_what_the_box_refuses_can_be_tried_again(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    apply(box, some(box), tmp_path)
    box.refuse[THP] = "EPERM"
    with pytest.raises(ApplyFailed, match="not everything"):
        revert(box, tmp_path)
    assert box.attributes[SWAPPINESS] == b"60\n", "the rest is back"
    box.refuse.clear()
    revert(box, tmp_path)
    assert box.digest() == was


def test_generated_files_that_were_made_anew_are_made_anew_again(tmp_path: Path, box: MemoryBox) -> None:
    """A new kernel came after the change: its entry in grub.cfg must not go with the revert."""
    config, ours = "/boot/grub/grub.cfg", "/etc/default/grub.d/99-redline.cfg"
    kernels = ["1"]

    def update_grub() -> int:
        words = " x=1" if ours in box.files else ""
        box.put_file(config, "".join(f"linux /vmlinuz-{kernel} quiet{words}\n" for kernel in kernels).encode())
        return 0

    box.commands[("update-grub",)] = update_grub
    changes = [
        Change("file", ours, None, b"x=1\n", ("x",)),
        Change("command", "", None, None, ("x",), argv=("update-grub",), covers=(config,), redo_argv=("update-grub",)),
    ]
    apply(box, changes, tmp_path)
    assert box.durable == [config], "what a command wrote nobody else would bring to the disk"
    kernels.append("2")
    update_grub()
    revert(box, tmp_path)
    assert box.durable == [config] * 2
    assert box.files[config][0] == b"linux /vmlinuz-1 quiet\nlinux /vmlinuz-2 quiet\n"


def test_a_damaged_journal_is_used_only_by_force(tmp_path: Path, box: MemoryBox) -> None:
    was = box.digest()
    done = apply(box, some(box), tmp_path)
    path = tmp_path / f"{done.txn}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(JournalDamaged):
        revert(box, tmp_path)
    with pytest.raises(JournalDamaged):
        revert_all(box, tmp_path)
    with pytest.raises(JournalDamaged):
        verify(box, tmp_path)
    revert(box, tmp_path, force=KINDS)
    assert box.digest() == was


def test_which_transaction(tmp_path: Path, box: MemoryBox) -> None:
    with pytest.raises(UsageError, match="no transaction last"):
        revert(box, tmp_path)
    done = apply(box, [attribute(box, SWAPPINESS, "10")], tmp_path)
    with pytest.raises(UsageError, match="no transaction 1999"):
        revert(box, tmp_path, "1999")
    revert(box, tmp_path, done.txn[:12])
    assert next(transactions(tmp_path)).status == "reverted"


def test_folders_that_a_change_made_go_with_it(tmp_path: Path) -> None:
    fake = folder_box(tmp_path / "box", files={"/etc/systemd/system/kept.d/own.conf": "mine"})
    folder = "/etc/systemd/system/vllm.service.d"
    changes = [
        Change("file", path, None, b"x\n", ("x",))
        for path in (f"{folder}/90.conf", "/etc/systemd/system/kept.d/90.conf", "/etc/a/b/90.conf")
    ]
    apply(fake, changes, tmp_path / "state")
    fake.put_file("/etc/a/theirs", b"y")
    revert(fake, tmp_path / "state")
    there = {path: fake.exists(path) for path in (folder, "/etc/systemd/system/kept.d", "/etc/a/b", "/etc/a/theirs")}
    assert list(there.values()) == [False, True, False, True], there


def test_a_folder_made_before_the_power_went_goes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = folder_box(tmp_path / "box", files={})

    def made_the_folder_alone(path: str, content: bytes, stat: Stat | None = None) -> None:
        (fake.root / path.lstrip("/")).parent.mkdir(parents=True)
        raise SystemExit

    monkeypatch.setattr(fake, "put_file", made_the_folder_alone)
    with pytest.raises(SystemExit):
        apply(fake, [Change("file", "/etc/a/b/90.conf", None, b"x\n", ("x",))], tmp_path / "state")
    monkeypatch.undo()
    revert(fake, tmp_path / "state")
    assert not fake.exists("/etc/a")


MIN_FREE = f"{VM}min_free_kbytes"


@pytest.mark.parametrize("since", [b"", b"99999\n", b"9000\n"])
def test_what_the_kernel_raised_by_itself_is_put_back(
    tmp_path: Path, box: MemoryBox, monkeypatch: pytest.MonkeyPatch, since: bytes
) -> None:
    """As Linux does when transparent huge pages are switched, whichever way. `since`: what somebody, or a boot's sysctl
    files, set it to meanwhile, also below what the kernel wants."""
    box.attributes[MIN_FREE] = b"8000\n"
    plain = box.set_attribute

    def raising(path: str, value: bytes) -> None:
        plain(path, value)
        if path == THP:
            box.attributes[MIN_FREE] = b"%d\n" % max(67584, int(box.attributes[MIN_FREE]))

    monkeypatch.setattr(box, "set_attribute", raising)
    was = dict(box.attributes)
    change = Change("attribute", THP, box.read(THP), b"madvise", ("x",), coupled=partners(THP))
    apply(box, [change], tmp_path)
    assert box.attributes[MIN_FREE] == b"67584\n"
    if since:
        box.attributes[MIN_FREE] = since
    revert(box, tmp_path)
    assert box.attributes == was | ({MIN_FREE: since} if since else {})
