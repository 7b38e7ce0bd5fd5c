"""A trace file of any kind that is known, read and analysed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from redline.analyse.profile.breakdown import Analysed
from redline.errors import UsageError
from redline.observe.trace.chrome import read_chrome
from redline.observe.trace.columns import TraceColumns
from redline.observe.trace.nsys import SQLITE, read_nsys

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reading:
    """A trace and what it holds. `analysed` None: it could not be read, and `sentence` says why."""

    label: str
    analysed: Analysed | None
    kept: Path | None
    sentence: str
    notes: tuple[str, ...] = ()


def read_any(path: Path, progress: Progress = lambda done, whole: None) -> TraceColumns:
    """A Chrome trace, gzip or not, or nsys' SQLite export, told apart by their first bytes."""
    if not path.is_file():
        raise UsageError(f"there is no trace {path}", fix="name a file: trace.json, trace.json.gz or report.sqlite")
    with path.open("rb") as file:
        head = file.read(16)
    if head == SQLITE:
        return read_nsys(path)
    if path.suffix == ".nsys-rep":
        raise UsageError(
            f"{path.name} is nsys' own format", fix=f"nsys export --type sqlite {path}, and name the .sqlite file"
        )
    return read_chrome(path, progress)
