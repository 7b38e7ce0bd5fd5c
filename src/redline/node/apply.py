"""Carries out a plan: every change is in the journal, on disk, before it is made, is read back after, and all of them
are taken back at the first one that does not hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from redline import __version__
from redline.clock import wall_time
from redline.errors import ApplyFailed, ChangedSince, NodeBusy, NodeFault, UsageError
from redline.node.change import Change, Images, as_text, digest, image, images, settled, value_of
from redline.node.journal import SUFFIX, Journal
from redline.node.lock import boot_id, locked
from redline.node.sys import Stat, Sys, SysFault
from redline.node.transaction import Step, Transaction, new_id, of, open_journal, to_json, transactions
from redline.node.undo import after_files, missing_folders, put_back, remove_folders, standing

STATE_DIR = Path("/var/lib/redline/node")
Arm = Callable[[Sys, Path, str, float], dict[str, Any]]
"""Starts the process that reverts transaction (sys, state_dir, txn, seconds) unless it is confirmed; says who it is."""
Guard = Callable[[Sys, Path, str, Sequence[Change], float], list[Change]]
"""Changes that make the next boot undo transaction (sys, state_dir, txn, its changes, seconds) unless confirmed."""
COMMAND_S = 600.0
LEAST_AFTER_BOOT_S = 300.0
"""To confirm after a boot: services come up, and somebody has to find the box and log in."""


class Check(Protocol):
    """Something that a change may break: looked at `before` the first and `after` the last write. Both give a record
    for the journal; `after` also why everything must be taken back, '' when it need not."""

    def before(self) -> dict[str, Any]: ...

    def after(self) -> tuple[dict[str, Any], str]: ...


def apply(
    sys: Sys,
    changes: Sequence[Change],
    state_dir: Path = STATE_DIR,
    *,
    confirm_s: float = 0.0,
    arm: Arm | None = None,
    guard: Guard | None = None,
    check: Check | None = None,
    purpose: dict[str, Any] | None = None,
) -> Transaction:
    """Makes `changes` in order, as one transaction. Either all of them hold afterwards, or none (ApplyFailed), or the
    process was ended in between: then the next one asks for `revert` or `resume`.

    `confirm_s` > 0: unless confirmed within so many seconds, everything is undone by the process that `arm` starts, and
    by the next boot, as `guard` arranges. What takes effect at the next boot alone is confirmed after it.
    `check` looks whether what must go on working does. `purpose` is kept with the transaction: what it is for, when it
    is not meant to stay.
    """
    if not changes:
        raise UsageError("there is nothing to apply")
    if not sys.user_is_root():
        raise ApplyFailed("changing the settings of a box takes root", fix="the same with sudo")
    with locked(state_dir, "apply"):
        refuse_beside(state_dir)
        txn = new_id()
        files = guard(sys, state_dir, txn, changes, confirm_s) if confirm_s > 0 and guard is not None else []
        journal = Journal(state_dir / f"{txn}{SUFFIX}")
        _begin(sys, journal, [*files, *changes], purpose=purpose or {}, guard=_guarded(files, changes, confirm_s))
        proved_by_boot = bool(files) and all(change.needs_reboot for change in changes)
        if confirm_s > 0 and arm is not None and not proved_by_boot:
            # before the first write: whatever ends this process cannot end the promise
            try:
                watchdog = arm(sys, state_dir, journal.txn, confirm_s)
            except NodeFault as fault:
                note(journal, "end", state="rolled back", why=str(fault))
                raise
            journal.add("watchdog", confirm_by=time.time() + confirm_s, **watchdog)
        return carry_out(sys, journal, check)


def _begin(sys: Sys, journal: Journal, changes: Sequence[Change], **fields: Any) -> None:
    """The journal's first line: everything that is needed to undo."""
    try:
        planned = [images(sys, change) for change in changes]
    except SysFault as fault:
        raise ApplyFailed(f"nothing was changed: {explain(fault)}") from fault
    for change, found in zip(changes, planned, strict=True):
        check_unchanged(change, found)
    journal.add(
        "begin",
        at=wall_time(),
        boot=boot_id(),
        redline=__version__,
        changes=[change.to_json() for change in changes],
        before=[to_json(found, keep=True) for found in planned],
        **fields,
    )


def _guarded(files: Sequence[Change], changes: Sequence[Change], confirm_s: float) -> dict[str, Any]:
    if not files:
        return {}
    mode = "after boot" if any(change.needs_reboot for change in changes) else "at boot"
    return {"mode": mode, "files": len(files), "seconds": max(confirm_s, LEAST_AFTER_BOOT_S)}


def resume(sys: Sys, state_dir: Path = STATE_DIR, txn: str = "last") -> Transaction:
    """Goes on with a transaction that was cut short."""
    with locked(state_dir, "apply --resume"):
        journal = open_journal(state_dir, txn)
        found = of(journal)
        if found.status != "unfinished":
            raise UsageError(f"transaction {found.txn} is {found.status}: there is nothing to go on with")
        if any(step.undoing or step.undone for step in found.steps):
            raise UsageError(
                f"transaction {found.txn} was cut short while it was being undone",
                fix=f"redline node revert {found.txn}",
            )
        journal.add("resumed", at=wall_time(), boot=boot_id())
        return carry_out(sys, journal)


def refuse_cut_short(state_dir: Path) -> None:
    """NodeBusy while an earlier transaction is neither done nor undone."""
    for earlier in transactions(state_dir):
        if earlier.status == "unfinished":
            raise NodeBusy(
                f"transaction {earlier.txn} was cut short",
                fix=f"redline node revert {earlier.txn} takes it back, redline node apply --resume goes on with it",
            )


def refuse_beside(state_dir: Path) -> None:
    """NodeBusy while an earlier transaction is open: on top of it nobody could tell whose value is whose."""
    refuse_cut_short(state_dir)
    for earlier in transactions(state_dir):
        if earlier.status == "unconfirmed":
            raise NodeBusy(
                f"transaction {earlier.txn} waits to be confirmed",
                fix=f"redline node confirm {earlier.txn} keeps it, redline node revert {earlier.txn} takes it back",
            )


def check_unchanged(change: Change, found: Images) -> None:
    """ChangedSince when the box is no longer what the plan was made for."""
    if change.kind != "command" and as_text(found[change.path].content) != as_text(change.before):
        raise ChangedSince(f"{change.path} changed since the plan was made", fix="look at the plan again")


def carry_out(sys: Sys, journal: Journal, check: Check | None = None) -> Transaction:
    """The steps that are not done yet; all of them are taken back at the first that fails."""
    touched: set[str] = set()
    steps = of(journal).steps
    try:
        if check is not None:
            journal.add("checked", **check.before())
        for index, step in enumerate(steps):
            if step.after is None:
                _carry_out_one(sys, journal, index, step, touched)
            touched.update(step.change.paths)
        _look_again(sys, steps)
        if check is not None:
            record, broken = check.after()
            journal.add("checked", **record)
            if broken:
                raise ApplyFailed(broken)
        journal.add("end", state="applied")
    except (SysFault, NodeFault, KeyboardInterrupt) as fault:
        why = explain(fault) if isinstance(fault, SysFault) else str(fault) or "interrupted"
        left = roll_back(sys, journal, steps, why)
        if isinstance(fault, KeyboardInterrupt) and not left:
            raise
        raise _failed(journal, why, left) from fault
    return of(journal)


def _look_again(sys: Sys, steps: Sequence[Step]) -> None:
    """ApplyFailed when a value that held right after its write does not hold any more: something writes it back."""
    last = {path: index for index, step in enumerate(steps) for path in step.change.paths}
    for index, step in enumerate(steps):
        change = step.change
        if change.kind != "attribute" or last[change.path] != index:
            continue
        raw = sys.read(change.path)
        if not settled(change, raw):
            owners = f" ({', '.join(change.owners)} may)" if change.owners else ""
            raise ApplyFailed(
                f"{change.path} was {value_of(change.after or b'')} and is {value_of(raw)} again",
                why=f"something on this box writes it back{owners}",
            )


def _failed(journal: Journal, why: str, left: list[str]) -> ApplyFailed:
    if left:
        return ApplyFailed(
            "a change did not hold, and not everything could be put back:\n  " + "\n  ".join(left),
            why=why,
            fix=f"redline node revert {journal.txn} tries again",
        )
    return ApplyFailed("a change did not hold; everything is as it was before", why=why)


def _carry_out_one(sys: Sys, journal: Journal, index: int, step: Step, touched: set[str]) -> None:
    """`step` is kept as the journal has it."""
    change, now = step.change, images(sys, step.change)
    if step.before is not None and standing(step, now, ended=False) == "ours":
        if change.kind == "command" or (
            change.kind == "attribute" and not settled(change, now[change.path].content or b"")
        ):
            write(sys, change)  # it may have been cut short in the middle
            now = images(sys, change)
        journal.add("done", i=index, after=to_json(now, keep=change.kind == "attribute"))
        return
    if change.path not in touched:
        check_unchanged(change, now)
    journal.add("intent", i=index, before=to_json(now, keep=True), folders=missing_folders(sys, change))
    step.before = now
    write(sys, change)
    after = images(sys, change)
    journal.add("done", i=index, after=to_json(after, keep=change.kind == "attribute"))
    step.after = after


def write(sys: Sys, change: Change) -> None:
    """Makes the change and reads it back. SysFault when the box refuses, ApplyFailed when it does something else."""
    if change.kind == "command":
        ran = sys.run(change.argv, timeout_s=COMMAND_S)
        if ran.rc:
            raise ApplyFailed(f"{change.label} ended with {ran.rc}: {(ran.err or ran.out).strip()[-400:]}")
        sys.make_durable(change.covers)
        return
    if change.kind == "attribute":
        sys.set_attribute(change.path, change.after or b"\n")
        raw = sys.read(change.path)
        if not settled(change, raw):
            raise ApplyFailed(
                f"{change.path}: {value_of(change.after or b'')} was written, {value_of(raw)} is what it holds"
            )
        return
    if change.after is None:
        sys.remove_file(change.path)
    else:
        new = Stat(change.mode, 0, 0) if change.mode and change.before is None else None
        sys.put_file(change.path, change.after, new)
    if image(sys, change.path, "file").sha != ("" if change.after is None else digest(change.after)):
        raise ApplyFailed(f"{change.path} does not hold what was written to it")


def roll_back(sys: Sys, journal: Journal, steps: Sequence[Step], why: str) -> list[str]:
    """Takes back what was begun, last first. Gives what could not be put back; then the transaction stays open."""
    left = []
    for index, step in reversed(list(enumerate(steps))):
        if step.before is None:
            continue
        try:
            now = images(sys, step.change)
            # the step that failed is ours whatever it holds; one that was done may be somebody else's by now
            state = "ours" if step.after is None else standing(step, now, ended=True)
            if state == "foreign":
                left.append(f"{step.change.label}: changed by somebody else in the meantime")
            elif state == "ours":
                note(journal, "undoing", i=index)
                put_back(sys, step)
                note(journal, "undone", i=index)
        except SysFault as fault:
            left.append(explain(fault))
        except ApplyFailed as fault:
            left.append(fault.what)
    left += after_files(sys, [step for step in steps if step.before is not None])
    remove_folders(sys, of(journal).steps)
    if not left:
        note(journal, "end", state="rolled back", why=why)
    return left


def note(journal: Journal, what: str, **fields: Any) -> bool:
    """A line about something that is being put back: that must go on also when the journal's disk is full."""
    try:
        journal.add(what, **fields)
    except NodeFault:
        return False
    return True


def explain(fault: SysFault) -> str:
    """What the box refused, in words."""
    said = {
        "absent": "there is no such file here",
        "denied": "not permitted (no root, a container, or a locked-down kernel)",
        "invalid": "the kernel does not take this value",
        "busy": "it is in use",
        "io": "the kernel reports an input/output error (an interrupt that the kernel manages itself, for one)",
        "readonly": "the file system is read-only",
        "unsupported": "this kernel cannot do that",
    }[fault.why]
    return f"{fault.path}: {said}" + (f" [{fault.detail}]" if fault.detail else "")
