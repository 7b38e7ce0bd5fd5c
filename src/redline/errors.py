"""Every error redline raises on purpose, and the exit code each one becomes.

    RedlineError                       1  a bug, unless a subclass says otherwise
    ├── UsageError                     2  what was asked for makes no sense
    │   └── SpecError                  2  a field of the experiment is wrong (file, line, field, did you mean)
    ├── EnvironmentFault               3  the box lacks something
    │   ├── ModelNotFound              3  no such folder, or a hub id with no network
    │   ├── TokenizerMissing           3  the model folder has no tokenizer
    │   ├── PortInUse                  3
    │   ├── StoreFault                 3  the results file cannot be used
    │   │   ├── StoreTooNew            3  written by a newer redline
    │   │   └── DiskFull               3
    │   └── NodeFault                  3  a setting of the box could not be changed, or put back
    │       ├── ApplyFailed            3  the box refused a change; what was done before it was undone
    │       ├── ChangedSince           3  somebody else changed it in the meantime
    │       ├── NodeBusy               3  another redline is changing this box, or was cut short
    │       └── JournalFault           3  the record of changes cannot be read or written
    │           └── JournalDamaged     3  it was changed by something else than redline
    ├── EngineError                    4  the engine failed
    │   ├── EngineStartFailed          4  it died or never became ready: log tail and diagnosis
    │   └── EngineDied                 4  it died or hung while under load
    ├── ThresholdMissed                5  the numbers are good, and not good enough
    ├── ThresholdNotJudged             6  no number that may be believed: neither met nor missed
    └── Unsupported                    6  this box or this engine cannot do that

Ctrl-C ends with 130, as a shell expects. `Skipped` is no error: it is a result that says what was not
measured and how to get it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

INTERRUPTED = 130


class RedlineError(Exception):
    """What happened, what it means, and what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.fix) if part)


class UsageError(RedlineError):
    exit_code = 2


class SpecError(UsageError):
    """A wrong field of an experiment. `line` counts from 1; 0 means that the value came from a flag."""

    def __init__(
        self, what: str, *, file: str = "", line: int = 0, field: str = "", why: str = "", fix: str = ""
    ) -> None:
        place = ":".join(str(part) for part in (file, line or "") if part)
        head = ": ".join(part for part in (place, field, what) if part)
        super().__init__(head, why=why, fix=fix)
        self.file = file
        self.line = line
        self.field = field


class EnvironmentFault(RedlineError):
    exit_code = 3


class ModelNotFound(EnvironmentFault):
    pass


class TokenizerMissing(EnvironmentFault):
    pass


class PortInUse(EnvironmentFault):
    pass


class StoreFault(EnvironmentFault):
    pass


class StoreTooNew(StoreFault):
    pass


class DiskFull(StoreFault):
    pass


class NodeFault(EnvironmentFault):
    pass


class ApplyFailed(NodeFault):
    pass


class ChangedSince(NodeFault):
    pass


class NodeBusy(NodeFault):
    pass


class JournalFault(NodeFault):
    pass


class JournalDamaged(JournalFault):
    pass


class EngineError(RedlineError):
    """`log_tail` holds the last lines that the engine printed; `diagnosis` a short tag such as 'out-of-memory'."""

    exit_code = 4

    def __init__(self, what: str, *, why: str = "", fix: str = "", log_tail: str = "", diagnosis: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.log_tail = log_tail
        self.diagnosis = diagnosis


class EngineStartFailed(EngineError):
    pass


class EngineDied(EngineError):
    pass


class ThresholdMissed(RedlineError):
    exit_code = 5


class ThresholdNotJudged(RedlineError):
    exit_code = 6


class Unsupported(RedlineError):
    exit_code = 6


@dataclass(frozen=True)
class Skipped:
    """A measurement that this box could not make: the reason, and how to get it."""

    reason: str
    how_to_get_it: str = ""

    def __str__(self) -> str:
        return f"skipped: {self.reason}" + (f" ({self.how_to_get_it})" if self.how_to_get_it else "")
