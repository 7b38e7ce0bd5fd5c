"""Every section of the report beyond the comparison itself, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from redline.report.classes import classes_section
from redline.report.client import client_section
from redline.report.model import ModelReport
from redline.report.quality import quality_section, warmup_section
from redline.report.search import search_section
from redline.report.section import Maker, Section
from redline.report.server import server_section
from redline.report.tokens import tokens_section
from redline.store.read import Reader
from redline.store.rows import RunRow

MAKERS: tuple[Maker, ...] = (
    search_section, classes_section, server_section, quality_section, warmup_section, client_section, tokens_section,
)  # fmt: skip


def sections(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> tuple[Section, ...]:
    """Those that have something to say about these runs."""
    return tuple(section for maker in MAKERS if (section := maker(reader, rows, models)) is not None)
