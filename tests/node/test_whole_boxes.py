"""Eight boxes: the whole plan is applied, verified, and taken back to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import ApplyFailed
from redline.node.apply import apply
from redline.node.audit import audit
from redline.node.fake import FakeSys
from redline.node.persisted import SYSCTL_FILE
from redline.node.plan import Plan, plan
from redline.node.revert import revert
from redline.node.transaction import transactions
from redline.node.verify import BAD, verify
from tests.node.fake_boxes import BOXES
from tests.node.folder_box import state_hash


def willing(box: FakeSys, made: Plan) -> None:
    """A folder runs no commands: those of the plan end well."""
    for change in made.changes:
        for argv in (change.argv, change.undo_argv, change.redo_argv):
            box.box.commands.setdefault(" ".join(argv), (0, ""))


@pytest.mark.parametrize("name", BOXES)
def test_there_and_back(tmp_path: Path, name: str) -> None:
    box = BOXES[name](tmp_path / "box")
    was = state_hash(tmp_path / "box")
    made = plan(box, audit(box, "latency"))
    assert state_hash(tmp_path / "box") == was
    if not made.changes:
        return
    willing(box, made)
    state = tmp_path / "journals"
    if not box.user_is_root():
        with pytest.raises(ApplyFailed, match="root"):
            apply(box, made.changes, state)
        return
    try:
        apply(box, made.changes, state)
    except ApplyFailed:
        assert state_hash(tmp_path / "box") == was
        assert next(transactions(state)).status == "rolled back"
        raise
    broken = [one for one in verify(box, state) if one.state in BAD]
    assert not broken
    done = {change.label for change in made.changes if not change.needs_reboot}
    again = {change.label for change in plan(box, audit(box, "latency")).changes}
    assert not done & again - {SYSCTL_FILE}, "what was applied is not planned again, but for rows that now apply"
    revert(box, state)
    assert state_hash(tmp_path / "box") == was
