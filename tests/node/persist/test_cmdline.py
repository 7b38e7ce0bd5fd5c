from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from redline.node.apply import apply
from redline.node.fake import FakeSys
from redline.node.persist.cmdline import cmdline, with_arguments
from redline.node.revert import revert
from redline.node.sys import Ran
from tests.node.folder_box import folder_box, put, state_hash
from tests.node.persist.test_lines import carry_out, setting

IOMMU = setting("iommu", "pt", "cmdline")
THP = setting("transparent_hugepage", "madvise", "cmdline")
RHEL = {
    "/etc/os-release": 'ID="rocky"\nID_LIKE="rhel centos fedora"',
    "/usr/sbin/grubby": "",
    "/etc/default/grub": "x",
    "/boot/loader/entries/a.conf": "title a\noptions root=/dev/vda1 ro",
    "/boot/grub2/grubenv": "# GRUB",
}
ENTRY = "/boot/loader/entries/arch.conf"


def arguments_by_shell(root: Path) -> str:
    """As grub-mkconfig has them: the defaults, then every file of the folder, in a shell."""
    files = ["etc/default/grub", *sorted(str(path.relative_to(root)) for path in root.glob("etc/default/grub.d/*.cfg"))]
    script = "".join(f'. "{root / file}"; ' for file in files) + 'printf %s "$GRUB_CMDLINE_LINUX_DEFAULT"'
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout


def test_against_a_shell_on_debian(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    form = cmdline(box, [IOMMU])
    carry_out(box, form)
    assert arguments_by_shell(tmp_path) == "quiet iommu=pt"
    command = form.changes[-1]
    assert (command.argv, command.covers) == (("update-grub",), ("/boot/grub/grub.cfg",))
    assert command.arguments == ("iommu=pt",)
    assert all(change.risk == 3 and change.needs_reboot for change in form.changes)
    carry_out(box, cmdline(box, [THP, setting("iommu", "off", "cmdline")]))
    assert arguments_by_shell(tmp_path) == "quiet transparent_hugepage=madvise iommu=off"
    assert cmdline(box, [THP]).changes == []


def test_what_several_places_want_is_one_argument(tmp_path: Path) -> None:
    """Every card has a place of its own, and the kernel one command line."""
    form = cmdline(folder_box(tmp_path), [IOMMU, IOMMU, THP])
    assert form.changes[-1].arguments == ("iommu=pt", "transparent_hugepage=madvise")
    carry_out(FakeSys(tmp_path), form)
    assert arguments_by_shell(tmp_path) == "quiet iommu=pt transparent_hugepage=madvise"


def test_odd_characters_survive_the_shell(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    carry_out(box, cmdline(box, [setting("x", 'a"b$c`d\\e', "cmdline")]))
    assert arguments_by_shell(tmp_path) == 'quiet x=a"b$c`d\\e'


def test_a_cloud_image_that_sets_the_variable_anew(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    put(tmp_path, {"/etc/default/grub.d/50-cloudimg-settings.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="console=ttyS0"'})
    carry_out(box, cmdline(box, [IOMMU]))
    assert arguments_by_shell(tmp_path) == "console=ttyS0 iommu=pt"
    put(tmp_path, {"/etc/default/grub.d/99-z.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="other"'})
    carry_out(box, cmdline(box, [IOMMU]))
    assert arguments_by_shell(tmp_path) == "other iommu=pt"


def test_grubby_on_rhel(tmp_path: Path) -> None:
    box = folder_box(tmp_path, files=RHEL)
    (command,) = cmdline(box, [IOMMU, THP]).changes
    assert command.argv == ("grubby", "--update-kernel=ALL", "--args=iommu=pt transparent_hugepage=madvise")
    assert {"/boot/grub2/grubenv", "/boot/loader/entries/a.conf", "/etc/default/grub"} < set(command.covers)
    assert command.redo_argv[2].startswith("--remove-args=")


def test_what_grubby_makes_goes_and_a_link_stays_one(tmp_path: Path) -> None:
    """On EFI boxes grubenv is a link."""
    box = folder_box(tmp_path, files={**RHEL, "/boot/efi/EFI/rocky/grubenv": "# GRUB"})
    (tmp_path / "boot/grub2/grubenv").unlink()
    (tmp_path / "boot/grub2/grubenv").symlink_to("../efi/EFI/rocky/grubenv")
    was = state_hash(tmp_path)

    class Grubby(FakeSys):
        def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "") -> Ran:
            (tmp_path / "etc/kernel").mkdir(parents=True)
            (tmp_path / "etc/kernel/cmdline").write_text("ro iommu=pt")
            (tmp_path / "boot/efi/EFI/rocky/grubenv").write_text("# GRUB\nkernelopts=ro iommu=pt\n")
            return Ran(tuple(argv), 0, "")

    apply(Grubby(tmp_path), cmdline(box, [IOMMU]).changes, tmp_path / "var/lib/redline/node")
    assert state_hash(tmp_path) != was
    revert(box, tmp_path / "var/lib/redline/node")
    assert state_hash(tmp_path) == was
    assert (tmp_path / "boot/grub2/grubenv").is_symlink()


def test_systemd_boot(tmp_path: Path) -> None:
    entry = "title Arch\nlinux /vmlinuz\noptions root=/dev/vda1 iommu=off  ro"
    box = folder_box(tmp_path, files={ENTRY: entry, "/etc/kernel/cmdline": "root=/dev/vda1 ro"})
    form = cmdline(box, [IOMMU])
    carry_out(box, form)
    assert box.read(ENTRY).decode().splitlines()[2] == "options root=/dev/vda1 ro iommu=pt"
    assert box.read("/etc/kernel/cmdline") == b"root=/dev/vda1 ro iommu=pt\n"
    assert {change.kind for change in form.changes} == {"file"}, "no command whose work could not be undone"


def test_no_boot_loader_is_said(tmp_path: Path) -> None:
    form = cmdline(folder_box(tmp_path, files={}), [IOMMU])
    assert form.changes == []
    assert "boot with iommu=pt" in form.warnings[0]


@pytest.mark.parametrize(
    ("words", "arguments", "after"),
    [("ro a=1 b", ["a=2"], "ro b a=2"), ("a-b=1", ["a_b=2"], "a_b=2"), ("", ["x"], "x"), ("ro x", ["x"], "ro x")],
)
def test_with_arguments(words: str, arguments: list[str], after: str) -> None:
    assert " ".join(with_arguments(words.split(), arguments)) == after
