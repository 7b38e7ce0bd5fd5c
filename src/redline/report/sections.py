"""Every section of the report beyond the comparison itself, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from redline.report.classes import classes_section
from redline.report.client import client_section
from redline.report.costs import cost_section
from redline.report.explain.section import explain_section
from redline.report.imported import imported_section
from redline.report.model import ModelReport
from redline.report.proof import detail_section, verdict_section
from redline.report.quality import quality_section, warmup_section
from redline.report.roofline import roofline_section
from redline.report.rounds import rounds_section
from redline.report.search import search_section
from redline.report.section import Maker, Section
from redline.report.server import server_section
from redline.report.sessions import clients_section, turns_section
from redline.report.stages import stages_section
from redline.report.telemetry import lines_section, telemetry_section
from redline.report.thresholds import thresholds_section
from redline.report.tokens import tokens_section
from redline.store.read import Reader
from redline.store.rows import RunRow

MAKERS: tuple[Maker, ...] = (
    imported_section,
    verdict_section,
    detail_section,
    search_section,
    rounds_section,
    thresholds_section,
    cost_section,
    classes_section,
    stages_section,
    turns_section,
    clients_section,
    server_section,
    explain_section,
    telemetry_section,
    lines_section,
    roofline_section,
    quality_section,
    warmup_section,
    client_section,
    tokens_section,
)


def sections(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> tuple[Section, ...]:
    """Those that have something to say about these runs."""
    return tuple(section for maker in MAKERS if (section := maker(reader, rows, models)) is not None)
