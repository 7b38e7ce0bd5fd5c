"""Whose a value is, and how one change is taken back."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable
from typing import Literal

from redline.errors import ApplyFailed
from redline.node.change import Change, Image, Images, between, digest, image, images, settled, value_of
from redline.node.coupled import PARTNERS, RECKONED, restoring_writes
from redline.node.sys import Sys, SysFault
from redline.node.transaction import Step

Standing = Literal["former", "ours", "foreign"]
"""former: as before the change · ours: as redline left it · foreign: as somebody else set it since."""


def standing(step: Step, now: Images, *, ended: bool) -> Standing:
    """Whose `now` is. `ended`: the journal tells how everything went; else a write may have happened that nobody could
    note down, and a value that this write would give is redline's."""
    reckoned = RECKONED.get(step.change.path)
    before = {path: one for path, one in step.former.items() if path != reckoned}
    now = {path: one for path, one in now.items() if path != reckoned}
    if not before:  # a command that rewrites nothing that is kept
        return "former" if step.before is None else "ours"
    if all(path in now and now[path].same(one) for path, one in before.items()):
        return "former"
    if step.undoing:
        return "ours"
    if step.after is not None:
        known = [before, step.after]
        mixed = all(any(path in one and one[path].same(now[path]) for one in known) for path in now)
        return "ours" if mixed else "foreign"
    begun = step.before is not None
    if not begun and ended:
        return "former"
    if _as_written(step, now):
        return "ours"
    return "foreign" if begun else "former"


def _as_written(step: Step, now: Images) -> bool:
    """Whether `now` is what the write of this step gives, or a part of it."""
    change, path = step.change, step.change.path
    if change.kind == "command":
        return step.before is not None
    if change.kind == "file":
        return now[path].sha == ("" if change.after is None else digest(change.after))
    was, raw = step.former[path].content or b"", now[path].content or b""
    return settled(change, raw) or between(was, change.after or b"", raw)


def put_back(sys: Sys, step: Step) -> None:
    """The former state, exactly. SysFault when the box refuses, ApplyFailed when it gives something else."""
    before = step.former
    if step.change.kind == "attribute":
        before = _with_theirs(sys, step)
        _write_all(sys, restoring_writes({path: one.content or b"" for path, one in before.items()}))
        now = images(sys, step.change)
        for path, one in before.items():
            was, has = value_of(one.content or b""), value_of(now[path].content or b"")
            if was != has:
                raise ApplyFailed(f"{path} was {was} and went back to {has} only")
        return
    for path, one in before.items():
        _put_file(sys, path, one)


def _with_theirs(sys: Sys, step: Step) -> Images:
    """The former state, but for a value that the kernel reckoned then and that somebody, a boot say, has set since: it
    stays, and the write that makes the kernel reckon anew does not change it."""
    path = RECKONED.get(step.change.path, "")
    if path not in step.former or step.after is None or path not in step.after:
        return step.former
    now = image(sys, path, "attribute")
    return step.former if now.same(step.after[path]) else {**step.former, path: now}


def _write_all(sys: Sys, writes: list[tuple[str, bytes]]) -> None:
    """In order; what is busy until another one is written is written last, and what holds already is left."""
    busy = []
    for path, value in writes:
        if path not in PARTNERS and value_of(sys.read(path)) == value_of(value):
            continue
        try:
            sys.set_attribute(path, value)
        except SysFault as fault:
            if fault.why != "busy":
                raise
            busy.append((path, value))
    for path, value in busy:
        sys.set_attribute(path, value)


def _put_file(sys: Sys, path: str, one: Image) -> None:
    folder, _, name = path.rpartition("/")
    for beside in sys.names(folder):
        if beside.startswith(f".{name}.redline-"):  # a write that was killed before its file took this name
            sys.remove_file(f"{folder}/{beside}")
    if one.content is not None:
        sys.put_file(path, one.content, one.stat)
    elif sys.stat(path) is not None:
        sys.remove_file(path)


def missing_folders(sys: Sys, change: Change) -> list[str]:
    """That a write of this file will make, the deepest first."""
    found, folder = [], posixpath.dirname(change.path)
    while change.kind == "file" and change.after is not None and len(folder) > 1 and not sys.exists(folder):
        found.append(folder)
        folder = posixpath.dirname(folder)
    return found


def remove_folders(sys: Sys, steps: Iterable[Step]) -> None:
    """Those that redline made and that nothing is in; an empty folder harms nobody, so a refusal is no failure."""
    for folder in sorted({folder for step in steps for folder in step.folders}, key=len, reverse=True):
        with contextlib.suppress(SysFault):
            sys.remove_folder(folder)


def after_files(sys: Sys, steps: Iterable[Step], remade: Iterable[Step] = ()) -> list[str]:
    """Runs what makes programs see that files are as before, for the commands among `steps`; those in `remade` have
    their files made anew, because somebody else made them anew since. Gives complaints."""
    complaints = []
    wanted = [(one.change.undo_argv, one) for one in steps] + [(one.change.redo_argv, one) for one in remade]
    for argv, step in wanted:
        if not argv:
            continue
        try:
            ran = sys.run(argv, timeout_s=600.0)
            sys.make_durable(step.change.covers)
        except SysFault as fault:
            complaints.append(str(fault))
        else:
            if ran.rc:
                complaints.append(f"{' '.join(argv)} ended with {ran.rc}: {(ran.err or ran.out).strip()[-200:]}")
    return complaints
