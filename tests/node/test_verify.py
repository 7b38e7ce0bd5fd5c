from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.apply import apply
from redline.node.change import Change
from redline.node.revert import revert
from redline.node.sys import Stat
from redline.node.verify import verify
from tests.node.memory_box import PAGES, VM, MemoryBox
from tests.node.test_apply import CONF, attribute, some

SWAPPINESS = f"{VM}swappiness"


def states(box: MemoryBox, folder: Path) -> dict[str, str]:
    return {one.path: one.state for one in verify(box, folder)}


def test_in_force_until_somebody_changes_it(tmp_path: Path) -> None:
    box = MemoryBox()
    apply(box, some(box), tmp_path)
    assert set(states(box, tmp_path).values()) == {"in force"}
    box.attributes[SWAPPINESS] = b"60\n"
    box.files[CONF] = (b"vm.swappiness = 11\n", Stat(0o600, 0, 0))
    del box.attributes[PAGES]
    found = states(box, tmp_path)
    assert (found[SWAPPINESS], found[CONF], found[PAGES]) == ("changed", "changed", "gone")
    del box.files[CONF]
    assert states(box, tmp_path)[CONF] == "gone"


def test_nothing_and_reverted(tmp_path: Path) -> None:
    box = MemoryBox()
    assert verify(box, tmp_path) == []
    apply(box, some(box), tmp_path)
    revert(box, tmp_path)
    assert verify(box, tmp_path) == []


def test_the_later_of_two_counts(tmp_path: Path) -> None:
    box = MemoryBox()
    first = apply(box, [attribute(box, SWAPPINESS, "10")], tmp_path)
    apply(box, [attribute(box, SWAPPINESS, "5")], tmp_path)
    assert states(box, tmp_path) == {SWAPPINESS: "in force"}
    assert verify(box, tmp_path, first.txn)[0].state == "changed", "asked for that one alone"


def test_a_file_that_comes_later_at_boot(tmp_path: Path) -> None:
    box = MemoryBox()
    box.files["/lib/systemd/systemd-sysctl"] = (b"", Stat(0o755, 0, 0))
    apply(box, [Change("file", CONF, None, b"# x\nvm.swappiness = 10\n", ("vm.swappiness",))], tmp_path)
    assert states(box, tmp_path)[CONF] == "in force"
    box.files["/usr/lib/sysctl.d/99-vendor.conf"] = (b"vm/swappiness=60\n", Stat(0o644, 0, 0))
    found = verify(box, tmp_path)[0]
    assert found.state == "overridden"
    assert "/usr/lib/sysctl.d/99-vendor.conf sets vm.swappiness to 60" in found.why


def test_boot_arguments_wait_for_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = MemoryBox()
    box.attributes["/proc/cmdline"] = b"ro quiet\n"
    path = "/etc/kernel/cmdline"
    change = Change("file", path, None, b"ro iommu=pt\n", ("iommu",), needs_reboot=True, arguments=("iommu=pt",))
    apply(box, [change], tmp_path)
    assert states(box, tmp_path)[path] == "waits for a reboot"
    monkeypatch.setattr("redline.node.verify.boot_id", lambda: "another")
    found = verify(box, tmp_path)[0]
    assert found.state == "changed"
    assert "was not given iommu=pt" in found.why
    box.attributes["/proc/cmdline"] = b"ro iommu=pt\n"
    assert states(box, tmp_path)[path] == "in force"


def test_cut_short(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    box = MemoryBox()

    def step(what: str) -> None:
        if what == f"put {CONF}":
            raise Killed

    box.step = step
    with pytest.raises(Killed):
        apply(box, some(box), tmp_path)
    found = states(box, tmp_path)
    assert found[SWAPPINESS] == "in force"
    assert found[CONF] == "unfinished"
