from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redline.errors import ApplyFailed, NodeBusy, UsageError
from redline.node.apply import apply
from redline.node.change import Change
from redline.node.commit_confirm import arm, confirm, pending, watch
from redline.node.fake import FakeSys
from redline.node.lock import start_ticks
from redline.node.transaction import Transaction, transactions
from tests.node.folder_box import folder_box, state_hash

MTU = "/sys/class/net/eth0/mtu"
CONFIG = "/etc/network/interfaces"
LONG_S = 300.0
PATIENCE_S = 40.0


def changes(box: FakeSys) -> list[Change]:
    return [
        Change("attribute", MTU, box.read(MTU), b"9000", ("net.mtu",), risk=3),
        Change("file", CONFIG, None, b"mtu 9000\n", ("net.mtu",), risk=3),
    ]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def only(state: Path) -> Transaction:
    return next(transactions(state))


APPLY = """
import os, signal, sys
from pathlib import Path
from redline.node.apply import apply
from redline.node.commit_confirm import arm
from redline.node.fake import FakeSys
from tests.node.test_commit_confirm import changes
box = FakeSys(Path(sys.argv[1]))
apply(box, changes(box), Path(sys.argv[2]), confirm_s=float(sys.argv[3]), arm=arm)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_undone_when_whoever_applied_it_is_dead(tmp_path: Path) -> None:
    """As when the connection over which redline was started is cut by the change."""
    root, state = tmp_path / "box", tmp_path / "state"
    folder_box(root)
    was = state_hash(root)
    argv = [sys.executable, "-c", APPLY, str(root), str(state), "2"]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    found = only(state)
    pid = found.watchdog["pid"]
    assert os.getsid(pid) == pid, "in a session of its own: no terminal's hang-up reaches it"
    until(lambda: only(state).status == "reverted")
    assert state_hash(root) == was
    with pytest.raises(UsageError, match="reverted") as raised:
        confirm(state)
    assert "not confirmed in time" in raised.value.why
    until(lambda: start_ticks(pid) == 0)


def test_confirmed_it_stays_and_the_process_ends(tmp_path: Path) -> None:
    root, state = tmp_path / "box", tmp_path / "state"
    box = folder_box(root)
    done = apply(box, changes(box), state, confirm_s=LONG_S, arm=arm)
    assert done.status == "unconfirmed"
    assert "is undone in" in pending(state)[0]
    pid, start = done.watchdog["pid"], done.watchdog["start"]
    assert start_ticks(pid) == start != 0
    with pytest.raises(NodeBusy, match="waits to be confirmed"):
        apply(box, changes(box), state)
    assert confirm(state, done.txn).status == "applied"
    until(lambda: start_ticks(pid) != start)
    assert pending(state) == []
    assert watch(box, state, done.txn, 0.0) == "applied: nothing to do", "should it be in the middle of waking up"
    assert box.read(MTU) == b"9000\n"


def test_confirm_never_signals_another_process_with_that_pid(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def lying(*_: object) -> dict[str, object]:
        from redline.node.lock import boot_id

        return {"pid": bystander.pid, "start": start_ticks(bystander.pid) - 1, "boot": boot_id()}

    try:
        box = folder_box(tmp_path / "box")
        apply(box, changes(box), tmp_path / "state", confirm_s=LONG_S, arm=lying)
        confirm(tmp_path / "state")
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(0.3)
    finally:
        bystander.kill()
        bystander.communicate()


def test_what_the_watching_process_does(tmp_path: Path) -> None:
    """Live values are put back whoever changed them; a file that was edited since may be somebody's repair."""
    root, state = tmp_path / "box", tmp_path / "state"
    box = folder_box(root)
    done = apply(box, changes(box), state, confirm_s=LONG_S, arm=lambda *_: {})
    assert "not undone by itself any more" in pending(state)[0], "as after a reboot"
    box.set_attribute(MTU, b"4000")
    box.put_file(CONFIG, b"repaired\n")
    assert watch(box, state, done.txn, 0.0) == "reverted 1 changes, left 1"
    assert box.read(MTU) == b"1500\n"
    assert box.read(CONFIG) == b"repaired\n"
    assert "nothing to do" in watch(box, state, done.txn, 0.0)


def test_it_watches_a_transaction_that_was_cut_short(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Mortal(FakeSys):
        def put_file(self, path: str, content: bytes, stat: object = None) -> None:
            raise Killed

    folder_box(tmp_path / "box")
    was = state_hash(tmp_path / "box")
    box = Mortal(tmp_path / "box")
    with pytest.raises(Killed):
        apply(box, changes(box), tmp_path / "state", confirm_s=LONG_S, arm=lambda *_: {})
    assert box.read(MTU) == b"9000\n"
    watch(FakeSys(tmp_path / "box"), tmp_path / "state", only(tmp_path / "state").txn, 0.0)
    assert state_hash(tmp_path / "box") == was


def test_without_the_watching_process_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = folder_box(tmp_path / "box")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ApplyFailed, match="nothing was changed"):
        apply(box, changes(box), tmp_path / "state", confirm_s=LONG_S, arm=arm)
    assert box.read(MTU) == b"1500\n"
    assert only(tmp_path / "state").status == "rolled back"
    assert apply(box, changes(box), tmp_path / "state").status == "applied", "and another try is free to go"


def test_nothing_to_confirm(tmp_path: Path) -> None:
    box = folder_box(tmp_path / "box")
    done = apply(box, changes(box), tmp_path / "state")
    with pytest.raises(UsageError, match="applied"):
        confirm(tmp_path / "state", done.txn)
