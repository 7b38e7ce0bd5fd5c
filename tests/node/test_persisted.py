"""Which file has the last word, by systemd's rules."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from redline.node.fake import FakeSys
from redline.node.persisted import files_in_order, sysctl_line, tmpfiles_line, udev_line
from redline.node.tunables.tunable import Place
from tests.node.boxes import plant

SYSTEMD = {"usr/lib/systemd/systemd-sysctl": ""}


def box(root: Path, files: dict[str, str]) -> FakeSys:
    return FakeSys(plant(root, SYSTEMD | files))


def test_files_by_name_over_all_folders_and_a_file_hides_its_namesakes_below(tmp_path: Path) -> None:
    names = ("etc/sysctl.d/20-b", "run/sysctl.d/10-a", "usr/lib/sysctl.d/20-b", "usr/local/lib/sysctl.d/30-c")
    found = files_in_order(box(tmp_path, {f"{name}.conf": "" for name in names}), "sysctl.d", ".conf")
    assert found == ["/run/sysctl.d/10-a.conf", "/etc/sysctl.d/20-b.conf", "/usr/local/lib/sysctl.d/30-c.conf"]


def test_a_link_to_nowhere_masks(tmp_path: Path) -> None:
    sys = box(tmp_path, {"usr/lib/sysctl.d/50-x.conf": "vm.swappiness=60\n", "etc/sysctl.d/.keep": ""})
    assert sysctl_line(sys, "vm.swappiness") == ("60", "/usr/lib/sysctl.d/50-x.conf")
    (tmp_path / "etc/sysctl.d/50-x.conf").symlink_to("/dev/null")
    assert sysctl_line(sys, "vm.swappiness") is None


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("vm.swappiness = 1\n", "1"),
        ("vm/swappiness=2\n", "2"),
        ("-vm.swappiness=3\n", "3"),
        ("# vm.swappiness=4\n; vm.swappiness=4\n", None),
        ("vm.swappiness=5\nvm.swappiness=6\n", "6"),
        ("vm.swap*=7\n", "7"),
        ("vm.swappiness=8\nvm.swap*=9\n", "8"),
        ("net.ipv4.tcp_rmem =  4096   131072\t6291456\n", None),
    ],
)
def test_lines_of_sysctl_files(tmp_path: Path, content: str, value: str | None) -> None:
    found = sysctl_line(box(tmp_path, {"etc/sysctl.d/10-a.conf": content}), "vm.swappiness")
    assert (found and found[0]) == value


def test_a_dot_in_an_interface_name(tmp_path: Path) -> None:
    sys = box(tmp_path, {"etc/sysctl.d/10-a.conf": "net/ipv4/conf/eth0.1/rp_filter=2\n"})
    assert sysctl_line(sys, "net.ipv4.conf.eth0/1.rp_filter") == ("2", "/etc/sysctl.d/10-a.conf")


def test_the_old_file_counts_only_where_it_is_linked_or_procps_reads_it(tmp_path: Path) -> None:
    files = {"etc/sysctl.conf": "vm.swappiness=9\n", "etc/sysctl.d/10-a.conf": "vm.swappiness=1\n"}
    assert sysctl_line(box(tmp_path / "a", files), "vm.swappiness") == ("1", "/etc/sysctl.d/10-a.conf")
    procps = FakeSys(plant(tmp_path / "b", files))
    assert sysctl_line(procps, "vm.swappiness") == ("9", "/etc/sysctl.conf")
    linked = box(tmp_path / "c", files)
    (tmp_path / "c/etc/sysctl.d/99-sysctl.conf").symlink_to("../sysctl.conf")
    assert sysctl_line(linked, "vm.swappiness") == ("9", "/etc/sysctl.d/99-sysctl.conf")


def test_the_first_line_wins_for_tmpfiles(tmp_path: Path) -> None:
    thp = "/sys/kernel/mm/transparent_hugepage/enabled"
    files = {
        "etc/tmpfiles.d/20-b.conf": f"w {thp} - - - - never\n",
        "usr/lib/tmpfiles.d/10-a.conf": f"d /run/x\nw! {thp} - - - - always\n",
    }
    assert tmpfiles_line(box(tmp_path, files), thp) == ("always", "/usr/lib/tmpfiles.d/10-a.conf")
    assert tmpfiles_line(box(tmp_path, files), "/sys/other") is None


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ('KERNEL=="nvme*", ATTR{queue/scheduler}="mq-deadline"', "mq-deadline"),
        ('ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="sd*|nvme*", ATTR{queue/scheduler}:="kyber"', "kyber"),
        ('KERNEL=="nvme*", ATTR{queue/rotational}=="0", ATTR{queue/scheduler}="bfq"', "bfq"),
        ('KERNEL=="nvme*", ATTR{queue/rotational}=="1", ATTR{queue/scheduler}="bfq"', None),
        ('KERNEL!="nvme*", ATTR{queue/scheduler}="bfq"', None),
        ('SUBSYSTEM=="net", ATTR{queue/scheduler}="bfq"', None),
        ('ENV{ID_MODEL}=="x", ATTR{queue/scheduler}="bfq"', None),
        ('# KERNEL=="nvme*", ATTR{queue/scheduler}="bfq"', None),
        ('KERNEL=="nvme*", ATTR{queue/scheduler}=="bfq"', None),
        ('KERNEL=="nvme*" ATTR{queue/scheduler}="unclosed', None),
    ],
)
def test_rules_of_udev(tmp_path: Path, rule: str, value: str | None) -> None:
    sys = box(tmp_path, {"etc/udev/rules.d/60-x.rules": rule + "\n", "sys/block/nvme0n1/queue/rotational": "0\n"})
    found = udev_line(sys, "queue/scheduler", Place("/sys/block/nvme0n1/queue/scheduler", "nvme0n1"))
    assert (found and found[0]) == value


def test_the_last_rule_wins_for_udev(tmp_path: Path) -> None:
    files = {
        "etc/udev/rules.d/60-a.rules": 'KERNEL=="nvme*", ATTR{queue/scheduler}="kyber"\n',
        "usr/lib/udev/rules.d/99-b.rules": 'KERNEL=="nvme*", \\\n  ATTR{queue/scheduler}="none"\n',
    }
    place = Place("/sys/block/nvme0n1/queue/scheduler", "nvme0n1")
    assert udev_line(box(tmp_path, files), "queue/scheduler", place) == ("none", "/usr/lib/udev/rules.d/99-b.rules")


SYSTEMD_SYSCTL = next(
    (path for path in ("/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl") if Path(path).exists()), ""
)


@pytest.mark.skipif(not SYSTEMD_SYSCTL, reason="needs systemd-sysctl")
def test_order_against_systemd_sysctl() -> None:
    """The real program prints the files of this box in its order."""
    done = subprocess.run([SYSTEMD_SYSCTL, "--cat-config"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip() or "systemd-sysctl cannot say")
    real = [line.removeprefix("# ") for line in done.stdout.splitlines() if line.startswith("# /")]
    real = [line for line in real if line.endswith(".conf") and Path(line).exists()]
    from redline.node.live import LiveSys

    assert files_in_order(LiveSys(), "sysctl.d", ".conf") == real


@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="needs systemd-tmpfiles")
def test_the_first_line_against_systemd_tmpfiles(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("\n")
    for name, value in (("20-b", "second"), ("10-a", "first")):
        plant(tmp_path, {f"etc/tmpfiles.d/{name}.conf": f"w /target - - - - {value}\n"})
    done = subprocess.run(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", "--prefix=/target"],
        capture_output=True,
        text=True,
        check=False,
    )
    if target.read_text() == "\n":
        pytest.skip(f"systemd-tmpfiles wrote nothing: {done.stderr.strip()}")
    found = tmpfiles_line(FakeSys(tmp_path), "/target")
    assert found is not None
    assert found[0] == target.read_text().strip()
