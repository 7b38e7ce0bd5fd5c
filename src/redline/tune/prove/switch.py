"""One setting, held at its present or at its wanted value: every change of it is a transaction of the journal.

Whatever ends the process, the journal holds what is needed to put the present value back. An end that Python sees
(an error, Ctrl-C, SIGTERM, SIGHUP) puts it back at once; after kill -9 `redline node revert` does.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from redline.errors import ChangedSince, NodeBusy
from redline.node.apply import apply, explain
from redline.node.change import Change, as_text, settled, value_of
from redline.node.journal import SUFFIX
from redline.node.lock import boot_id, identity, start_ticks
from redline.node.revert import revert
from redline.node.sys import Sys, SysFault
from redline.node.transaction import Transaction, transactions

PURPOSE = "prove"


class Switch(Protocol):
    """Between two states of the box. `to` the state that already is checks that nobody has changed it."""

    def to(self, wanted: bool) -> None:
        """Raises NodeFault: the box refuses, or somebody else has changed the setting."""
        ...

    def check(self) -> None: ...

    def started(self) -> None:
        """The engine is up: what was meant for its start alone ends."""
        ...

    def close(self) -> None:
        """Back to the present value. Safe to call twice."""
        ...


class JournalSwitch:
    """Attributes of the kernel. `close` also takes back what this process lost track of when it was interrupted."""

    def __init__(self, sys: Sys, state_dir: Path, changes: Sequence[Change]) -> None:
        self._sys, self._state_dir, self._changes = sys, state_dir, tuple(changes)
        self._txn = ""
        self.flips = 0

    def to(self, wanted: bool) -> None:
        if wanted == bool(self._txn):
            self.check()
            return
        with shielded():
            self.flips += 1
            if wanted:
                purpose = {"what": PURPOSE, **identity()}
                self._txn = apply(self._sys, self._changes, self._state_dir, purpose=purpose).txn
            else:
                self._take_back(self._txn)

    def check(self) -> None:
        """ChangedSince when the setting is not what this switch has made it."""
        for change in self._changes:
            try:
                raw = self._sys.read(change.path)
            except SysFault as fault:
                raise ChangedSince(f"the setting is gone: {explain(fault)}") from fault
            if not (settled(change, raw) if self._txn else as_text(raw) == as_text(change.before)):
                raise ChangedSince(
                    f"{change.path} is {value_of(raw)} now, and redline did not set it so",
                    why="a daemon writes it back, or somebody else works on this box",
                    fix="stop that for the time of the measurement (`redline node audit` names daemons that write it)",
                )

    def started(self) -> None: ...

    def close(self) -> None:
        with shielded():
            for found in mine(self._state_dir):
                self._take_back(found.txn)

    def _take_back(self, txn: str) -> None:
        revert(self._sys, self._state_dir, txn)
        self._txn = ""
        # it only ever was for the time of a round, and it holds nothing any more
        (self._state_dir / f"{txn}{SUFFIX}").unlink(missing_ok=True)


class NoSwitch:
    """Changes nothing: what is called a difference between its two states is a false alarm."""

    def to(self, wanted: bool) -> None: ...

    def check(self) -> None: ...

    def started(self) -> None: ...

    def close(self) -> None: ...


def mine(state_dir: Path) -> list[Transaction]:
    """Trials of this process that still hold, newest first."""
    me = identity()
    trials = [one for one in transactions(state_dir) if one.purpose.get("what") == PURPOSE and one.holds]
    return [one for one in reversed(trials) if {key: one.purpose.get(key) for key in me} == me]


def refuse_leftovers(state_dir: Path) -> None:
    """NodeBusy when a trial was killed and the box may still have its value, or when one goes on."""
    for found in transactions(state_dir):
        if found.purpose.get("what") != PURPOSE or not found.holds:
            continue
        ids = ", ".join(dict.fromkeys(id_ for step in found.steps for id_ in step.change.tunable_ids))
        if _lives(found.purpose):
            raise NodeBusy(f"another redline is trying {ids} on this box", fix="wait until it is done")
        raise NodeBusy(
            f"a trial of {ids} was killed, and the box may still have its value",
            why=f"transaction {found.txn} holds what was there before",
            fix=f"redline node revert {found.txn}",
        )


def _lives(purpose: dict[str, Any]) -> bool:
    return purpose.get("boot") == boot_id() and start_ticks(int(purpose.get("pid", 0))) == purpose.get("start") != 0


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Signals that would end the process wait until the block is left: a change of the box is made whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, frame: waiting.append((n, frame))) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(number for number, _ in waiting):
            signal.raise_signal(late)


@contextlib.contextmanager
def hang_up_interrupts() -> Iterator[None]:
    """A terminal that goes away ends the block as Ctrl-C does, so that the box is put back."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
