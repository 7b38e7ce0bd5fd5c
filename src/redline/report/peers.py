"""Load points as another tool would have reported them: its names, its definitions, redline's raw log."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from redline.analyse.peers.answers import Beside
from redline.analyse.peers.figure import PeerReport
from redline.analyse.peers.tools import PEER_DEFINITIONS, TOOLS, recompute
from redline.errors import UsageError
from redline.store.read import Reader
from redline.store.rows import PointRow, RunRow

_SLO = ("ttft_ms", "tpot_ms", "e2e_ms")


@dataclass(frozen=True)
class PeerPoint:
    """One load point of one start of an engine."""

    run_id: str
    model: str
    engine: str
    repeat: int
    load: str
    report: PeerReport


def peer_points(reader: Reader, run_ids: Sequence[str], tool: str) -> list[PeerPoint]:
    """Every load point of these runs. UsageError when there is no such tool, or nothing to recompute from."""
    if tool not in TOOLS:
        near = difflib.get_close_matches(tool, TOOLS, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(TOOLS)}"
        raise UsageError(f"redline does not know the numbers of {tool!r}", fix=fix)
    rows = {row.id: row for row in map(reader.run, run_ids)}.values()
    found = [
        PeerPoint(row.id, trial.model, trial.engine, trial.repeat, point.label, _recomputed(reader, row, point, tool))
        for row in rows
        for trial in row.trials
        for point in trial.points
        if _has_requests(reader, point)
    ]
    if not found:
        raise UsageError(
            f"{', '.join(row.id for row in rows)}: no requests are stored, so there is nothing to recompute from",
            why="a run that was imported from a file without per-request records has only that file's own summary",
        )
    return found


def _has_requests(reader: Reader, point: PointRow) -> bool:
    return len(reader.requests(point.id)) > 0


def _recomputed(reader: Reader, row: RunRow, point: PointRow, tool: str) -> PeerReport:
    slo = row.experiment.get("slo") or {}
    beside = Beside(
        began_ns=point.measured_from_ns,
        ended_ns=point.ended_ns,
        slo={name: float(slo[name]) for name in _SLO if slo.get(name)},
        opening_events=round(float(point.outcome.get("opening_events") or 0)),
        closing_events=round(float(point.outcome.get("closing_events") or 0)),
    )
    return recompute(tool, reader.requests(point.id), beside)


def as_dict(points: Sequence[PeerPoint]) -> dict[str, Any]:
    """For `--json`: each point's `result` has the keys of the tool's own file."""
    used = {figure.definition for point in points for figure in point.report.figures if figure.definition}
    return {
        "tool": points[0].report.tool,
        "version": points[0].report.version,
        "points": [
            {
                "run": point.run_id,
                "model": point.model,
                "engine": point.engine,
                "repeat": point.repeat,
                "load": point.load,
                "result": point.report.as_dict(),
            }
            for point in points
        ],
        "limits": list(points[0].report.limits),
        "definitions": {name: asdict(PEER_DEFINITIONS[name]) for name in sorted(used)},
    }


def print_points(points: Sequence[PeerPoint], console: Console) -> None:
    """One table per load point, then how these numbers differ from redline's own."""
    for point in points:
        again = f" · repeat {point.repeat + 1}" if point.repeat else ""
        console.print(Text(f"{point.model} · {point.engine} · {point.load}{again}", style="bold"))
        console.print(_table(point.report))
    report = points[0].report
    console.print(Text(f"as {report.tool} {report.version} defines them, from redline's raw log:", style="dim"))
    used = dict.fromkeys(figure.definition for figure in report.figures if figure.definition)
    for name in used:
        definition = PEER_DEFINITIONS[name]
        console.print(Text(f"  {name}: {definition.differs or definition.text}", style="dim"), soft_wrap=True)
    for limit in report.limits:
        console.print(Text(f"  {limit}", style="dim"), soft_wrap=True)


def _table(report: PeerReport) -> Table:
    table = Table(title=report.title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for figure in report.figures:
        value = (
            "–" if math.isnan(figure.value) else f"{figure.value:,.0f}" if not figure.unit else f"{figure.value:,.2f}"
        )
        if figure.unit == "s":
            value = value if math.isnan(figure.value) else f"{figure.value:,.4f}"
        table.add_row(figure.label, value, figure.unit)
    return table
