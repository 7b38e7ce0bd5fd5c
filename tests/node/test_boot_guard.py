from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from redline.errors import NodeBusy, UsageError
from redline.node import apply as applying
from redline.node import boot_guard, commit_confirm, verify
from redline.node.apply import apply
from redline.node.boot_guard import UNITS, at_boot, guard
from redline.node.change import Change
from redline.node.commit_confirm import arm, confirm, pending, watch
from redline.node.fake import FakeSys
from redline.node.journal import Journal
from redline.node.revert import revert
from redline.node.transaction import Transaction, of, transactions
from tests.node.folder_box import DEBIAN, folder_box, state_hash

MTU = "/sys/class/net/eth0/mtu"
NETPLAN = "/etc/netplan/99-redline.yaml"
GRUB = "/etc/default/grub.d/99-redline.cfg"
SYSTEMD = {**DEBIAN, "/run/systemd/system/.keep": ""}


def live(box: FakeSys) -> list[Change]:
    return [
        Change("attribute", MTU, box.read(MTU), b"9000", ("net.mtu",), risk=3),
        Change("file", NETPLAN, None, b"network: {}\n", ("net.mtu",), risk=3),
    ]


def boot(_box: FakeSys) -> list[Change]:
    return [
        Change(
            *("file", GRUB, None, b'X="iommu=pt"\n', ("pcie.iommu",)),
            risk=3, needs_reboot=True, arguments=("iommu=pt",),
        )
    ]  # fmt: skip


def made(tmp_path: Path, changes: list[Change] | None = None, **more: object) -> tuple[FakeSys, Path, Transaction, str]:
    """A box that systemd starts, its journals, a transaction that waits, and the hash of the box before."""
    box = folder_box(tmp_path / "box", SYSTEMD, **more)
    was = state_hash(tmp_path / "box")
    todo = live(box) if changes is None else changes
    done = apply(box, todo, tmp_path / "state", confirm_s=200.0, arm=lambda *_: {}, guard=guard)
    assert done.status == "unconfirmed"
    return box, tmp_path / "state", done, was


def reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (applying, boot_guard, commit_confirm, verify):
        monkeypatch.setattr(module, "boot_id", lambda: "the next boot")


def units(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root / UNITS[1:])) for path in (root / UNITS[1:]).rglob("*") if path.is_file())


def only(state: Path) -> Transaction:
    return next(transactions(state))


def test_a_reboot_undoes_what_nobody_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, state, done, was = made(tmp_path)
    assert units(box.root) == [
        f"redline-undo-{done.txn}.service",
        f"sysinit.target.d/redline-undo-{done.txn}.conf",
    ]
    assert "undone by the next boot" in pending(state)[0]
    assert "not started since" in at_boot(box, state, done.txn), "in the boot in which it was applied others watch"
    reboot(monkeypatch)
    box.set_attribute(MTU, b"1500")  # what a boot does to live values
    assert at_boot(box, state, done.txn).startswith("reverted")
    assert state_hash(box.root) == was
    assert only(state).status == "reverted"
    assert units(box.root) == []
    assert at_boot(box, state, done.txn) == "reverted: nothing to do"


def test_it_is_undone_also_when_the_power_went_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    class Mortal(FakeSys):
        def put_file(self, path: str, content: bytes, stat: object = None) -> None:
            if path == NETPLAN:
                raise Killed
            super().put_file(path, content, stat)  # type: ignore[arg-type]

    folder_box(tmp_path / "box", SYSTEMD)
    was, box, state = state_hash(tmp_path / "box"), Mortal(tmp_path / "box"), tmp_path / "state"
    with pytest.raises(Killed):
        apply(box, live(box), state, confirm_s=200.0, arm=lambda *_: {}, guard=guard)
    assert len(units(box.root)) == 2, "the guard stands before the first change"
    reboot(monkeypatch)
    assert at_boot(FakeSys(tmp_path / "box"), state, only(state).txn).startswith("reverted")
    assert state_hash(tmp_path / "box") == was


def test_confirmed_the_guard_goes_and_the_change_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, state, done, _ = made(tmp_path)
    assert confirm(state, done.txn, sys=box).status == "applied"
    assert units(box.root) == []
    assert box.read(NETPLAN) == b"network: {}\n"
    assert all(one.state == "in force" for one in verify.verify(box, state)), "and nobody misses the guard"
    reboot(monkeypatch)
    assert at_boot(box, state, done.txn) == "applied: nothing to do"
    revert(box, state)
    assert box.stat(NETPLAN) is None


def test_a_confirmation_that_was_cut_short_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 between the journal's line and the removal of the unit."""
    box, state, done, _ = made(tmp_path)
    Journal(next(state.glob("*.jsonl"))).add("confirmed", at=0.0)
    reboot(monkeypatch)
    assert at_boot(box, state, done.txn) == "applied: nothing to do"
    assert units(box.root) == []
    assert box.read(MTU) == b"9000\n"


def test_reverted_the_guard_goes_too(tmp_path: Path) -> None:
    box, state, _, was = made(tmp_path)
    revert(box, state)
    assert state_hash(box.root) == was
    assert units(box.root) == []


def test_boot_arguments_are_confirmed_after_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[object] = []

    def arm_none(*given: object) -> dict[str, Any]:
        armed.append(given)
        return {}

    box = folder_box(tmp_path / "box", SYSTEMD)
    state = tmp_path / "state"
    done = apply(box, boot(box), state, confirm_s=200.0, arm=arm_none, guard=guard)
    assert (done.status, armed) == ("unconfirmed", []), "nothing can be cut off before the boot"
    assert [name.rpartition(".")[2] for name in units(box.root)] == ["service", "timer", "conf"]
    timer = (box.root / UNITS[1:] / f"redline-undo-{done.txn}.timer").read_text()
    assert "OnActiveSec=300\n" in timer, "never less than it takes to log in"
    assert "takes effect at the next boot" in pending(state)[0]
    with pytest.raises(UsageError, match="takes effect at the next boot"):
        confirm(state, sys=box)
    with pytest.raises(NodeBusy, match="waits to be confirmed"):
        apply(box, live(box), state)
    reboot(monkeypatch)
    assert "is undone in about" in pending(state)[0] or "is being undone" in pending(state)[0]
    assert confirm(state, sys=box).status == "applied"
    assert units(box.root) == []
    assert box.stat(GRUB) is not None


def test_boot_arguments_that_nobody_confirms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = folder_box(tmp_path / "box", SYSTEMD)
    was = state_hash(box.root)
    done = apply(box, boot(box), tmp_path / "state", confirm_s=900.0, guard=guard)
    reboot(monkeypatch)
    said = at_boot(box, tmp_path / "state", done.txn)
    assert "the kernel that runs was given iommu=pt: gone at the next boot" in said
    assert state_hash(box.root) == was


def test_for_good_waits_for_no_boot(tmp_path: Path) -> None:
    box = folder_box(tmp_path / "box", SYSTEMD)
    apply(box, boot(box), tmp_path / "state", confirm_s=200.0, guard=guard)
    assert confirm(tmp_path / "state", sys=box, for_good=True).status == "applied"
    assert units(box.root) == []


def test_live_and_boot_are_confirmed_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = folder_box(tmp_path / "box", SYSTEMD)
    both = [*live(box), *boot(box)]
    done = apply(box, both, tmp_path / "state", confirm_s=200.0, arm=lambda *_: {}, guard=guard)
    kept = confirm(tmp_path / "state", sys=box)
    assert (kept.status, kept.kept) == ("unconfirmed", True)
    assert watch(box, tmp_path / "state", done.txn, 0.0) == "unconfirmed: nothing to do", "this boot is confirmed"
    assert box.read(MTU) == b"9000\n"
    with pytest.raises(UsageError, match="takes effect at the next boot"):
        confirm(tmp_path / "state", sys=box)
    reboot(monkeypatch)
    assert confirm(tmp_path / "state", sys=box).status == "applied"


def test_no_unit_where_systemd_does_not_start_the_box(tmp_path: Path) -> None:
    box = folder_box(tmp_path / "box")
    done = apply(box, live(box), tmp_path / "state", confirm_s=200.0, arm=lambda *_: {}, guard=guard)
    assert done.guard == {}
    assert "is not undone by itself any more" in pending(tmp_path / "state")[0]


def test_what_the_unit_starts_is_a_program_that_undoes(tmp_path: Path) -> None:
    """The very command line of the unit, with a journal of another boot."""
    box, state, done, was = made(tmp_path)
    path = next(state.glob("*.jsonl"))
    old = tmp_path / "old"
    old.mkdir()
    again = Journal(old / path.name)
    for record in Journal(path).records:
        fields = {name: value for name, value in record.items() if name != "what"}
        again.add(record["what"], **{**fields, **({"boot": "another"} if record["what"] == "begin" else {})})
    unit = (box.root / UNITS[1:] / f"redline-undo-{done.txn}.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    argv = line.removeprefix("ExecStart=").replace(str(state.resolve()), str(old)).split()
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("reverted")
    assert state_hash(box.root) == was
    assert [record["what"] for record in Journal(old / path.name).records][-1] == "boot guard said"
    assert of(Journal(old / path.name)).status == "reverted"


@pytest.mark.parametrize("make", [live, boot])
def test_against_systemd_analyze(make: object, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt install systemd")
    box = folder_box(tmp_path / "box", SYSTEMD)
    state = tmp_path / "a state 100% of $us"
    apply(box, make(box), state, confirm_s=200.0, arm=lambda *_: {}, guard=guard)  # type: ignore[operator]
    paths = [str(box.root / UNITS[1:] / name) for name in units(box.root) if not name.endswith(".conf")]
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *paths]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr


def test_against_systemd_itself(tmp_path: Path) -> None:
    """What systemd would start at the next boot, as it says itself; it tells no one but an ordinary user."""
    systemd = Path("/lib/systemd/systemd")
    if not systemd.exists() or not Path("/lib/systemd/system/sysinit.target").exists():
        pytest.skip("systemd is not installed: apt install systemd")
    box = folder_box(tmp_path / "box", SYSTEMD)
    for name, make in (("one", live), ("two", boot)):
        apply(box, make(box), tmp_path / name, confirm_s=200.0, arm=lambda *_: {}, guard=guard)
    with tempfile.TemporaryDirectory(prefix="redline-units-") as folder:
        shutil.copytree(box.root / UNITS[1:], folder, dirs_exist_ok=True)
        Path(folder).chmod(0o755)
        nobody = 65534 if os.geteuid() == 0 else None
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "SYSTEMD_UNIT_PATH": f"{folder}:/lib/systemd/system"}
        ran = subprocess.run(
            [str(systemd), "--test", "--system", "--unit=multi-user.target"], capture_output=True, text=True,
            check=False, cwd="/", env=environment, timeout=60, user=nobody, group=nobody,
        )  # fmt: skip
    told = ran.stdout + ran.stderr
    if "Action: " not in told:
        pytest.skip(f"systemd does not run its test here: {told[-200:]}")
    started = set(re.findall(r"Action: redline-undo-[^ ]+\.(\w+) -> start", told))
    assert started == {"service", "timer"}
    assert "cycle" not in told


def test_the_interpreter_and_its_search_path_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"src{os.pathsep}/a folder")
    box = folder_box(tmp_path / "box", SYSTEMD)
    (service, *_) = guard(box, tmp_path / "state", "t", live(box), 200.0)
    text = (service.after or b"").decode()
    assert f'Environment="PYTHONPATH={Path("src").resolve()}:/a folder"' in text
    assert f"ExecStart={sys.executable} -m redline.node.boot_guard t --state-dir {tmp_path}/state" in text


def test_confirm_before_systemd_is_arm_s_matter(tmp_path: Path) -> None:
    """The watching process and the guard stand together."""
    box = folder_box(tmp_path / "box", SYSTEMD)
    done = apply(box, live(box), tmp_path / "state", confirm_s=300.0, arm=arm, guard=guard)
    assert "is undone in" in pending(tmp_path / "state")[0]
    confirm(tmp_path / "state", done.txn, sys=box)
    assert units(box.root) == []
