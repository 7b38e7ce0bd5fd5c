"""Every section of the report beyond the comparison itself, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from redline.report.imported import imported_section
from redline.report.model import ModelReport
from redline.report.search import search_section
from redline.report.section import Maker, Section
from redline.store.read import Reader
from redline.store.rows import RunRow

MAKERS: tuple[Maker, ...] = (search_section, imported_section)


def sections(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> tuple[Section, ...]:
    """Those that have something to say about these runs."""
    return tuple(section for maker in MAKERS if (section := maker(reader, rows, models)) is not None)
