from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.fake import FakeSys
from redline.node.persist.form import Form, Setting
from redline.node.persist.lines import limits, modules, overridden_at_boot, sysctls, tmpfiles, udev
from redline.node.persisted import sysctl_line, tmpfiles_line, udev_line
from redline.node.tunables.rows import everywhere
from redline.node.tunables.tunable import Persist, Place, Tunable
from tests.node.folder_box import SOURCE, THP, folder_box, put

SYSCTL = "/etc/sysctl.d/90-redline.conf"
SCHEDULER = "/sys/block/nvme0n1/queue/scheduler"


def setting(key: str, value: str, persist: Persist = "sysctl", path: str = "", name: str = "") -> Setting:
    place = Place(path or "/proc/sys/" + key.replace(".", "/"), name)
    row = Tunable(
        id=key,
        title=key,
        group="memory",
        scope="host",
        places=lambda _sys: [place],
        read=lambda _sys, _place: "",
        wants=everywhere("equals", value),
        sources=(SOURCE,),
        persist=persist,
        persist_key=key,
    )
    return Setting(row, place, value)


def carry_out(box: FakeSys, form: Form) -> None:
    for change in form.changes:
        if change.kind == "file":
            assert (box.read(change.path) if box.stat(change.path) else None) == change.before
            if change.after is None:
                box.remove_file(change.path)
            else:
                box.put_file(change.path, change.after)


def test_sysctls_are_kept_once_and_added_to(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    carry_out(box, sysctls(box, [setting("vm.swappiness", "10"), setting("net.ipv4.tcp_rmem", "4096 87380 16777216")]))
    carry_out(box, sysctls(box, [setting("vm.swappiness", "5"), setting("vm.max_map_count", "1048576")]))
    lines = box.read(SYSCTL).decode().splitlines()
    assert lines[1:] == ["vm.swappiness = 5", "net.ipv4.tcp_rmem = 4096 87380 16777216", "vm.max_map_count = 1048576"]
    assert sysctls(box, [setting("vm.swappiness", "5")]).changes == [], "nothing to do twice"


def test_a_masked_file_stays_masked(tmp_path: Path) -> None:
    """What is masked is a link to /dev/null, which must not be replaced by a file of settings."""
    box = folder_box(tmp_path)
    for folder in ("etc/sysctl.d", "dev"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "dev/null").touch()
    (tmp_path / SYSCTL[1:]).symlink_to("/dev/null")
    changes = sysctls(box, [setting("vm.swappiness", "10")]).changes
    assert [change.path for change in changes] == ["/etc/sysctl.d/99-zz-redline.conf"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("/etc/sysctl.d/10-early.conf", SYSCTL),
        ("/usr/lib/sysctl.d/99-vendor.conf", "/etc/sysctl.d/99-zz-redline.conf"),
        ("/run/sysctl.d/99-zzz.conf", "/etc/sysctl.d/zzz-redline.conf"),
    ],
)
def test_a_later_file_wins_so_ours_is_later(tmp_path: Path, theirs: str, ours: str) -> None:
    box = folder_box(tmp_path)
    put(tmp_path, {theirs: "vm/swappiness=60"})
    form = sysctls(box, [setting("vm.swappiness", "10")])
    assert [change.path for change in form.changes] == [ours]
    carry_out(box, form)
    assert sysctl_line(box, "vm.swappiness") == ("10", ours)


def test_our_file_moves_when_a_later_one_has_come(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    carry_out(box, sysctls(box, [setting("vm.max_map_count", "1048576")]))
    put(tmp_path, {"/etc/sysctl.d/99-vendor.conf": "vm.swappiness=60"})
    carry_out(box, sysctls(box, [setting("vm.swappiness", "10")]))
    assert box.stat(SYSCTL) is None
    assert sysctl_line(box, "vm.max_map_count") == ("1048576", "/etc/sysctl.d/99-zz-redline.conf")
    assert sysctl_line(box, "vm.swappiness") == ("10", "/etc/sysctl.d/99-zz-redline.conf")


def test_a_file_with_the_last_word_is_changed_in_place(tmp_path: Path) -> None:
    """Without systemd-sysctl procps reads /etc/sysctl.conf after everything else."""
    box = folder_box(tmp_path, files={"/etc/sysctl.conf": "# mine\nvm.swappiness = 60\nvm.laptop_mode=0"})
    form = sysctls(box, [setting("vm.swappiness", "10")])
    carry_out(box, form)
    assert box.read("/etc/sysctl.conf") == b"# mine\nvm.swappiness = 10\nvm.laptop_mode=0\n"
    assert sysctl_line(box, "vm.swappiness") == ("10", "/etc/sysctl.conf")
    assert "changed in place" in form.warnings[0]


def test_tmpfiles_the_first_file_wins(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    put(tmp_path, {"/usr/lib/tmpfiles.d/50-thp.conf": f"w {THP} - - - - always"})
    form = tmpfiles(box, [setting("enabled", "madvise", "tmpfiles", THP)])
    assert [change.path for change in form.changes] == ["/etc/tmpfiles.d/10-redline.conf"]
    carry_out(box, form)
    assert tmpfiles_line(box, THP) == ("madvise", "/etc/tmpfiles.d/10-redline.conf")


def test_udev_the_last_rule_wins(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    theirs = 'ACTION=="add|change", KERNEL=="nvme*", ATTR{queue/scheduler}="mq-deadline"'
    put(tmp_path, {"/usr/lib/udev/rules.d/99-io.rules": theirs})
    one = setting("queue/scheduler", "none", "udev", SCHEDULER, "nvme0n1")
    carry_out(box, udev(box, [one]))
    path = "/etc/udev/rules.d/99-zz-redline.rules"
    assert udev_line(box, one.key, one.place) == ("none", path)
    rule = 'ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="nvme0n1", ATTR{queue/scheduler}="none"'
    assert box.read(path).decode().splitlines()[1:] == [rule]
    carry_out(box, udev(box, [setting("queue/scheduler", "kyber", "udev", SCHEDULER, "nvme0n1")]))
    assert box.read(path).decode().count("ATTR") == 1, "the rule is replaced"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/sys/class/net/eth0/queues/rx-0/rps_cpus", "net"), ("/sys/class/bdi/0:52/read_ahead_kb", "bdi")],
)
def test_udev_subsystems(tmp_path: Path, path: str, kind: str) -> None:
    key = path.split("/", 5)[5]
    form = udev(folder_box(tmp_path), [setting(key, "f", "udev", path, path.split("/")[4])])
    assert f'SUBSYSTEM=="{kind}", KERNEL=="{path.split("/")[4]}", ATTR{{{key}}}="f"'.encode() in (
        form.changes[0].after or b""
    )


def test_limits_for_everyone_and_root(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    carry_out(box, limits(box, [setting("memlock", "unlimited", "limits")]))
    carry_out(box, limits(box, [setting("nofile", "1048576", "limits"), setting("memlock", "unlimited", "limits")]))
    lines = box.read("/etc/security/limits.d/90-redline.conf").decode().splitlines()[1:]
    both = [f"{who} - {what}" for what in ("memlock unlimited", "nofile 1048576") for who in ("*", "root")]
    assert sorted(lines) == sorted(both)


@pytest.mark.parametrize(("distribution", "tool"), [("debian", "update-initramfs"), ("rhel", "dracut")])
def test_modules_and_the_initial_ram_disk(tmp_path: Path, distribution: str, tool: str) -> None:
    box = folder_box(tmp_path, files={"/etc/os-release": f"ID={distribution}", f"/usr/sbin/{tool}": ""})
    form = modules(box, [setting("nvidia.NVreg_EnableStreamMemOPs", "1", "module")])
    assert form.changes[0].after.decode().splitlines()[1:] == ["options nvidia NVreg_EnableStreamMemOPs=1"]  # type: ignore[union-attr]
    assert form.changes[1].argv[0] == tool
    assert form.changes[1].undo_argv == form.changes[1].argv, "made anew when the file is gone again"
    assert all(change.needs_reboot for change in form.changes)


def test_a_line_that_no_longer_has_the_last_word(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    content = b"# x\nvm.swappiness = 10\n"
    put(tmp_path, {SYSCTL: content.decode()})
    assert overridden_at_boot(box, SYSCTL, content) == ""
    put(tmp_path, {"/etc/sysctl.d/95-new.conf": "vm.swappiness=1"})
    assert "95-new.conf sets vm.swappiness to 1" in overridden_at_boot(box, SYSCTL, content)
    assert overridden_at_boot(box, "/etc/default/grub", b"A=1\n") == ""
