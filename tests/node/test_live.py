"""The live backend on ordinary files, and on real attributes of this box where root may write them."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from redline.node import live
from redline.node.live import LiveSys
from redline.node.sys import Stat, SysFault


def test_a_file_is_replaced_as_a_whole_with_mode_kept(tmp_path: Path) -> None:
    box, path = LiveSys(), str(tmp_path / "deep/er/file.conf")
    box.put_file(path, b"one\n")
    assert box.stat(path) == Stat(0o644, os.geteuid(), os.getegid())
    Path(path).chmod(0o600)
    inode = Path(path).stat().st_ino
    box.put_file(path, b"two\n")
    assert box.read(path) == b"two\n"
    assert box.stat(path) == Stat(0o600, os.geteuid(), os.getegid())
    assert Path(path).stat().st_ino != inode, "renamed over, so that no reader sees half of it"
    assert box.names(str(tmp_path / "deep/er")) == ["file.conf"]
    box.remove_file(path)
    assert box.stat(path) is None


def test_a_file_that_cannot_be_put_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(SysFault):
        LiveSys().put_file(str(tmp_path / "taken"), b"x")
    assert LiveSys().names(str(tmp_path)) == ["taken"]


@pytest.mark.parametrize(
    ("path", "why"), [("/proc/sys/vm/no_such", "absent"), ("/proc/version/x", "absent"), ("/proc/sys", "unsupported")]
)
def test_why_a_read_failed(path: str, why: str) -> None:
    with pytest.raises(SysFault) as caught:
        LiveSys().read(path)
    assert caught.value.why == why


def test_names_links_and_patterns() -> None:
    box = LiveSys()
    assert "self" in box.names("/proc")
    assert box.names("/no/such/folder") == []
    assert (box.link("/proc/self/ns/net") or "").startswith("net:[")
    assert box.link("/proc/version") is None
    assert "/proc/sys/vm/swappiness" in box.glob("/proc/sys/vm/swap*")


def test_commands() -> None:
    box = LiveSys()
    assert box.run([sys.executable, "-c", "print(input())"], stdin="word\n").out == "word\n"
    assert box.run(["/no/such/command"]).rc == 127
    with pytest.raises(SysFault, match="no end within"):
        box.run([sys.executable, "-c", "import time; time.sleep(30)"], timeout_s=0.2)


@pytest.mark.skipif(os.geteuid() != 0, reason="writing attributes takes root")
def test_a_real_attribute_is_refused_and_set_and_put_back() -> None:
    box, path = LiveSys(), "/proc/sys/vm/compaction_proactiveness"
    before = box.read(path)
    try:
        try:
            box.set_attribute(path, b"30")
        except SysFault as fault:
            pytest.skip(f"this box does not let root write it: {fault}")
        assert box.read(path) == b"30\n"
        with pytest.raises(SysFault) as caught:
            box.set_attribute(path, b"101")
        assert caught.value.why == "invalid"
        with pytest.raises(SysFault) as caught:
            box.set_attribute("/proc/sys/vm/no_such", b"1")
        assert caught.value.why in ("absent", "denied")
    finally:
        box.set_attribute(path, before)
    assert box.read(path) == before


def test_a_file_behind_a_link_is_written_and_the_link_stays(tmp_path: Path) -> None:
    """As on boxes whose /etc is kept elsewhere: what was a link before must be one after a revert."""
    (tmp_path / "kept").mkdir()
    real, link, box = tmp_path / "kept/grub", tmp_path / "grub", LiveSys()
    real.write_text("before")
    link.symlink_to("kept/grub")
    box.put_file(str(link), b"after")
    assert (link.is_symlink(), real.read_text(), sorted(each.name for each in tmp_path.iterdir())) == (
        True, "after", ["grub", "kept"],
    )  # fmt: skip
    box.remove_file(str(link))
    assert not real.exists()
    assert link.is_symlink()


def test_a_link_that_masks_a_file_is_not_written_through(tmp_path: Path) -> None:
    """A pipe stands for /dev/null here: what masks a file must neither be replaced nor removed."""
    pipe, link = tmp_path / "null", tmp_path / "90-redline.conf"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (link, pipe):
        with pytest.raises(SysFault, match="masks one"):
            LiveSys().put_file(str(path), b"vm.swappiness = 10\n")
        with pytest.raises(SysFault, match="masks one"):
            LiveSys().remove_file(str(path))
    assert (link.is_symlink(), pipe.is_fifo()) == (True, True)


def test_a_replaced_file_keeps_its_extended_attributes(tmp_path: Path) -> None:
    """SELinux keeps a file's label there: a boot loader's file with another one may not be read at all."""
    file = tmp_path / "grub"
    file.write_text("before")
    try:
        os.setxattr(file, "user.label", b"bootloader_etc_t")
    except OSError as error:
        pytest.skip(f"this file system keeps no extended attributes: {error}")
    LiveSys().put_file(str(file), b"after")
    assert (file.read_text(), os.getxattr(file, "user.label")) == ("after", b"bootloader_etc_t")


def test_what_a_command_wrote_is_made_durable(tmp_path: Path) -> None:
    real = tmp_path / "grub.cfg"
    real.write_text("linux /vmlinuz psi=1\n")
    (tmp_path / "link").symlink_to(real)
    LiveSys().make_durable([str(real), str(tmp_path / "link"), str(tmp_path / "not there"), str(tmp_path)])
    assert real.read_text() == "linux /vmlinuz psi=1\n"


def test_a_boot_loaders_file_is_taken_out_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GRUB reads the file system as it lies there: only what is under /boot has to wait for that."""
    asked: list[int] = []
    monkeypatch.setattr(live, "_READ_AT_BOOT", f"{tmp_path}/boot/")
    monkeypatch.setattr(fcntl, "ioctl", lambda descriptor, number, argument: asked.append(number))
    LiveSys().put_file(f"{tmp_path}/etc/one", b"x")
    assert asked == []
    LiveSys().put_file(f"{tmp_path}/boot/one", b"x")
    LiveSys().remove_file(f"{tmp_path}/boot/one")
    assert asked == [0x4004662B] * 2
