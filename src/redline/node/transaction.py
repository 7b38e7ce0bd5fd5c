"""A transaction as its journal tells it: what was to be done, how far it came, and how it ended."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from redline.errors import UsageError
from redline.node.change import Change, Image, Images
from redline.node.journal import SUFFIX, Journal, Record, journal_paths

Status = Literal["empty", "unfinished", "unconfirmed", "applied", "rolled back", "reverted"]
"""empty: cut short before the box was touched · unfinished: cut short later · unconfirmed: applied, undone unless
confirmed in time."""


@dataclass
class Step:
    """One change, and what was found around it: `planned` when the transaction began, `before` right before the write.
    `before` None: its turn never came. `after` None: it was begun, and nobody wrote down how it went. `undoing`: it was
    being taken back when the journal ends."""

    change: Change
    planned: Images
    before: Images | None = None
    after: Images | None = None
    undoing: bool = False
    undone: bool = False
    folders: tuple[str, ...] = ()
    """That were not there before, the deepest first."""

    @property
    def former(self) -> Images:
        return self.planned if self.before is None else self.before


@dataclass
class Transaction:
    """`boot`: in which boot it was applied. `confirm_by`: seconds since the epoch; 0: needs no confirmation."""

    txn: str
    at: str = ""
    boot: str = ""
    steps: list[Step] = field(default_factory=list)
    ended: str = ""
    why: str = ""
    confirm_by: float = 0.0
    confirmed: bool = False
    kept: bool = False
    """Confirmed for as long as the box is not started again: what only a boot can prove still waits."""
    watchdog: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)
    """What the next boot does about it: `mode`, `seconds`, and `files`: how many of the first steps are its unit."""
    foreign_left: list[str] = field(default_factory=list)
    purpose: dict[str, Any] = field(default_factory=dict)
    """Empty for changes that are meant to stay."""

    @property
    def status(self) -> Status:
        if not self.steps:
            return "empty"
        waits = (self.confirm_by > 0 and not self.kept) or self.guard.get("mode") == "after boot"
        if self.ended == "applied" and waits and not self.confirmed:
            return "unconfirmed"
        return self.ended or "unfinished"  # type: ignore[return-value]

    @property
    def holds(self) -> bool:
        """Whether the box may still carry something of it."""
        return self.status in ("unfinished", "unconfirmed", "applied")


def of(journal: Journal) -> Transaction:
    """Folds the lines; those that this redline does not know are left out."""
    found = Transaction(journal.txn)
    for record in journal.records:
        what, index = record["what"], record.get("i", -1)
        step = found.steps[index] if 0 <= index < len(found.steps) else None
        if what == "begin":
            found.at, found.boot = record["at"], record["boot"]
            found.purpose, found.guard = record.get("purpose", {}), record.get("guard", {})
            planned = [_images(fields) for fields in record["before"]]
            changes = [Change.from_json(fields) for fields in record["changes"]]
            found.steps = [Step(change, images) for change, images in zip(changes, planned, strict=True)]
        elif step:
            _take(step, record)
        elif what == "watchdog":
            found.watchdog, found.confirm_by = record, record["confirm_by"]
        elif what == "confirmed":
            found.confirmed = True
        elif what == "kept":
            found.kept = True
        elif what == "resumed":
            found.boot = record["boot"]
        elif what == "end":
            found.ended, found.why = record["state"], record.get("why", "")
            found.foreign_left = record.get("left", [])
    return found


def _take(step: Step, record: Record) -> None:
    what = record["what"]
    if what == "intent":
        step.before, step.after, step.undoing, step.undone = _images(record["before"]), None, False, False
        step.folders = tuple(dict.fromkeys([*step.folders, *record.get("folders", [])]))
    elif what == "done":
        step.after = _images(record["after"])
    elif what == "undoing":
        step.undoing = True
    elif what == "undone":
        step.undoing, step.undone = False, True


def to_json(images: Images, *, keep: bool) -> dict[str, Any]:
    """`keep` the content: it is needed to put the former state back."""
    return {path: (one if keep else Image(one.sha, one.stat)).to_json() for path, one in images.items()}


def _images(fields: dict[str, Any]) -> Images:
    return {path: Image.from_json(one) for path, one in fields.items()}


def new_id() -> str:
    """Sorts by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}"


def open_journal(state_dir: Path, txn: str, *, salvage: bool = False) -> Journal:
    """By id, beginning of an id, or `last`. UsageError when there is none, or more than one."""
    paths = journal_paths(state_dir)
    found = paths[-1:] if txn == "last" else [path for path in paths if path.name.startswith(txn)]
    exact = [path for path in found if path.name == f"{txn}{SUFFIX}"]
    found = exact or found
    if len(found) != 1:
        known = ", ".join(path.name.removesuffix(SUFFIX) for path in paths[-5:]) or "none"
        raise UsageError(
            f"{'no' if not found else 'more than one'} transaction {txn}", why=f"the last ones in {state_dir}: {known}"
        )
    return Journal(found[0], salvage=salvage)


def transactions(state_dir: Path, *, salvage: bool = True) -> Iterator[Transaction]:
    """All of them, oldest first."""
    for path in journal_paths(state_dir):
        yield of(Journal(path, salvage=salvage))
