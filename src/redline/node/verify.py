"""Whether what redline has set is still so: now, after a reboot, and at the next one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redline.node.apply import STATE_DIR, explain
from redline.node.change import images, settled, value_of
from redline.node.lock import boot_id
from redline.node.persist.lines import overridden_at_boot
from redline.node.revert import who
from redline.node.sys import Sys, SysFault, text
from redline.node.transaction import Step, Transaction, of, open_journal, transactions

Held = Literal["in force", "waits for a reboot", "changed", "gone", "overridden", "unfinished"]
"""overridden: so now, but another file sets it back at the next boot."""
BAD = frozenset({"changed", "gone", "overridden", "unfinished"})


@dataclass(frozen=True)
class Verified:
    """One change of one transaction."""

    txn: str
    path: str
    tunable_ids: tuple[str, ...]
    state: Held
    want: str = ""
    now: str = ""
    why: str = ""


def verify(sys: Sys, state_dir: Path = STATE_DIR, txn: str = "") -> list[Verified]:
    """Every change that is not undone, of one transaction or of all; of two on the same path the later one counts.
    Reads only."""
    found = [of(open_journal(state_dir, txn))] if txn else list(transactions(state_dir, salvage=False))
    holding = [one for one in found if one.holds]
    last = {step.change.label: one.txn for one in holding for step in one.steps}
    return [
        _verify_step(sys, state_dir, one, step)
        for one in holding
        for step in one.steps
        if last[step.change.label] == one.txn and not (step.undone and one.status != "unfinished")
    ]


def _verify_step(sys: Sys, state_dir: Path, found: Transaction, step: Step) -> Verified:
    change = step.change
    state: Held = "in force"
    want, now, why = value_of(change.after or b""), "", ""
    if found.status == "unfinished" and (step.after is None or step.undone):
        return Verified(found.txn, change.label, change.tunable_ids, "unfinished", why="the transaction was cut short")
    try:
        seen = images(sys, change)
    except SysFault as fault:
        gone: Held = "gone" if fault.why == "absent" else "changed"
        return Verified(found.txn, change.label, change.tunable_ids, gone, want, why=explain(fault))
    if change.kind == "attribute":
        now = value_of(seen[change.path].content or b"")
        if not settled(change, seen[change.path].content or b""):
            state, why = "changed", who(sys, state_dir, found, change)
    else:
        want = ""
        if change.kind == "file" and step.after and not seen[change.path].same(step.after[change.path]):
            state = "changed" if seen[change.path].sha else "gone"
            why = who(sys, state_dir, found, change)
        elif undone := overridden_at_boot(sys, change.path, change.after or b""):
            state, why = "overridden", undone
        elif change.needs_reboot:
            state, why = _after_reboot(sys, found, step)
    return Verified(found.txn, change.label, change.tunable_ids, state, want, now, why)


def _after_reboot(sys: Sys, found: Transaction, step: Step) -> tuple[Held, str]:
    """A boot argument is in force when the running kernel was given it."""
    missing = missing_arguments(sys, step)
    if not missing and found.boot != boot_id():
        return "in force", ""
    if missing and found.boot != boot_id():
        return "changed", f"the box was started again, and the kernel was not given {' '.join(missing)}"
    return "waits for a reboot", ""


def missing_arguments(sys: Sys, step: Step) -> list[str]:
    """Boot arguments that the file or command of `step` is about and that the running kernel was not given."""
    given = (text(sys, "/proc/cmdline") or "").split()
    return [word for word in step.change.arguments if word not in given]
