"""Takes transactions back, to the bytes that were there before. What somebody else has changed since is left alone, and
said, unless one insists."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from redline.errors import ApplyFailed, ChangedSince
from redline.node.apply import STATE_DIR, explain, note
from redline.node.change import Change, Images, Kind, images, value_of
from redline.node.journal import Journal
from redline.node.lock import boot_id, locked
from redline.node.sys import Sys, SysFault, text
from redline.node.transaction import Step, Transaction, of, open_journal, to_json, transactions
from redline.node.undo import after_files, put_back, remove_folders, standing

KINDS: tuple[Kind, ...] = ("attribute", "file", "command")


@dataclass(frozen=True)
class Foreign:
    """Something that is no longer as redline left it. `who`: as far as the box tells."""

    path: str
    tunable_ids: tuple[str, ...]
    wrote: str
    now: str
    who: str

    def __str__(self) -> str:
        return f"{self.path}: redline left {self.wrote}, it is {self.now} now ({self.who})"


@dataclass
class Reverted:
    """`left`: what was somebody else's and stayed; `gone`: what is no longer there to be put back; `complaints`: from
    commands that make programs read files again."""

    txn: str
    before: str
    undone: list[str] = field(default_factory=list)
    left: list[Foreign] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@dataclass
class Standings:
    """Indices of a transaction's steps: to undo, somebody else's (and what is told of them), made anew by somebody."""

    mine: set[int] = field(default_factory=set)
    foreign: dict[int, Foreign] = field(default_factory=dict)
    remade: set[int] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)


def revert(
    sys: Sys, state_dir: Path = STATE_DIR, txn: str = "last", *, force: Collection[Kind] = (), leave: bool = False
) -> Reverted:
    """Undoes one transaction, also one that was cut short, itself while being undone, too.

    Raises ChangedSince, with nothing touched, when a third party changed any of it; what is of a kind in `force` is
    overwritten then, and `leave` leaves the others and undoes the rest. ApplyFailed when the box refuses: what could be
    undone was, and it can be tried again.
    """
    with locked(state_dir, "revert"):
        return revert_locked(sys, state_dir, txn, force=force, leave=leave)


def revert_all(
    sys: Sys, state_dir: Path = STATE_DIR, *, force: Collection[Kind] = (), leave: bool = False
) -> list[Reverted]:
    """Undoes every transaction that still holds, newest first."""
    with locked(state_dir, "revert --all"):
        holding = [found.txn for found in transactions(state_dir, salvage=bool(force)) if found.holds]
        return [revert_locked(sys, state_dir, txn, force=force, leave=leave) for txn in reversed(holding)]


def revert_locked(sys: Sys, state_dir: Path, txn: str, *, force: Collection[Kind], leave: bool) -> Reverted:
    """`revert` for one who holds the lock."""
    journal = open_journal(state_dir, txn, salvage=bool(force))
    found = of(journal)
    done = Reverted(found.txn, found.status)
    if not found.holds:
        if found.status == "empty":
            note(journal, "end", state="reverted", why="nothing was begun")
        return done
    if not sys.user_is_root():
        raise ApplyFailed("changing the settings of a box takes root", fix="the same with sudo")
    sorted_ = sort_steps(sys, state_dir, found)
    kept = {index: one for index, one in sorted_.foreign.items() if found.steps[index].change.kind not in force}
    if kept and not leave:
        raise ChangedSince(
            "somebody else changed this since, so nothing was reverted:\n  " + "\n  ".join(map(str, kept.values())),
            why="what they set may be needed",
            fix="--leave keeps what they set and reverts the rest, --force overwrites it",
        )
    done.gone, done.left = sorted_.gone, list(kept.values())
    overwritten = set(sorted_.foreign) - set(kept)
    failed = _undo(sys, journal, sorted_.mine | overwritten, overwritten, done)
    mine, remade = ([found.steps[index] for index in sorted(those)] for those in (sorted_.mine, sorted_.remade))
    done.complaints = after_files(sys, mine, remade)
    remove_folders(sys, found.steps)
    if failed:
        raise ApplyFailed(
            "not everything could be put back:\n  " + "\n  ".join(failed),
            why="the rest is as it was before",
            fix=f"redline node revert {found.txn} tries again",
        )
    note(journal, "end", state="reverted", left=[one.path for one in done.left])
    return done


def _undo(sys: Sys, journal: Journal, todo: set[int], overwritten: set[int], done: Reverted) -> list[str]:
    """Last first. Goes on after a refusal; gives the refusals."""
    failed = []
    steps = of(journal).steps
    for index in sorted(todo, reverse=True):
        step = steps[index]
        try:
            if index in overwritten:
                note(journal, "overwrites", i=index, now=to_json(images(sys, step.change), keep=True))
            note(journal, "undoing", i=index)
            put_back(sys, step)
            note(journal, "undone", i=index)
            done.undone.append(step.change.label)
        except SysFault as fault:
            failed.append(explain(fault))
        except ApplyFailed as fault:
            failed.append(fault.what)
    return failed


def sort_steps(sys: Sys, state_dir: Path, found: Transaction) -> Standings:
    """Whose each step's values are. Reads only: a step is reckoned with the state that the undoing of the ones after it
    will leave."""
    result = Standings()
    then: Images = {}
    ended = found.status in ("applied", "unconfirmed")
    for index, step in reversed(list(enumerate(found.steps))):
        try:
            now = images(sys, step.change)
        except SysFault as fault:
            if fault.why != "absent":
                raise ApplyFailed(f"nothing was reverted: {explain(fault)}") from fault
            result.gone.append(step.change.path)
            continue
        now = {path: then.get(path, one) for path, one in now.items()}
        state = standing(step, now, ended=ended)
        if state == "ours":
            result.mine.add(index)
            then.update(step.former)
        elif state == "foreign" and step.change.kind == "command":
            result.remade.add(index)
        elif state == "foreign":
            result.foreign[index] = _foreign(sys, state_dir, found, step, now)
    return result


def _foreign(sys: Sys, state_dir: Path, found: Transaction, step: Step, now: Images) -> Foreign:
    change, after = step.change, step.after or {}
    differing = [path for path in now if path in after and not now[path].same(after[path])]
    path = next((path for path in differing if not now[path].same(step.former[path])), change.path)
    if change.kind == "attribute":
        left = after[path].content if path in after else change.after
        wrote, has = value_of(left or b""), value_of(now[path].content or b"")
    else:
        wrote, has = "its own content", "another one" if now[path].sha else "gone"
    return Foreign(path, change.tunable_ids, wrote, has, who(sys, state_dir, found, change))


def who(sys: Sys, state_dir: Path, found: Transaction, change: Change) -> str:
    """Who may have changed it: a later transaction, a daemon that runs and writes it, the boot, or nobody knows."""
    for later in transactions(state_dir):
        if later.txn > found.txn and later.holds and {*change.paths} & {p for s in later.steps for p in s.change.paths}:
            return f"transaction {later.txn}: revert that first"
    running = [owner for owner in change.owners if _runs(sys, owner)]
    if running:
        return f"{', '.join(running)} runs here and writes it"
    if change.kind == "attribute" and found.boot and found.boot != boot_id():
        return "the box was started again since"
    return "not known who"


def _runs(sys: Sys, name: str) -> bool:
    return any((text(sys, path) or "") == name[:15] for path in sys.glob("/proc/[0-9]*/comm"))
