"""A part of the report that is a table with remarks: the same data for the terminal, Markdown, HTML and JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redline.report.model import ModelReport
from redline.store.read import Reader
from redline.store.rows import RunRow


@dataclass(frozen=True)
class Section:
    """`rows` have one cell per `heads`. `notes` stand below the table. `brief` sections are shown in the terminal too,
    the others only in the files."""

    key: str
    title: str
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    brief: bool = False


Maker = Callable[[Reader, Sequence[RunRow], Sequence[ModelReport]], Section | None]
"""Makes one section from the stored runs and what was computed of them; None when there is nothing to say."""
