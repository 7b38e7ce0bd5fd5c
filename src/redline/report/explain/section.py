"""The line of the report that says who is to blame, of runs that were measured with --explain."""

from __future__ import annotations

from collections.abc import Sequence

from redline.report.explain.read import PointExplained, explain_point
from redline.report.model import ModelReport
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

MOST_POINTS = 12
_HEADS = ("engine", "load", "time lost", "blamed", "unexplained")


def explain_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None where nothing was watched for."""
    asked = [row for row in rows if (row.experiment.get("observe") or {}).get("explain")]
    pairs = [(row, trial, point) for row in asked for trial in row.trials for point in trial.points]
    told = [explain_point(reader, *pair) for pair in pairs[:MOST_POINTS]]
    table = tuple(_row(one) for one in told if isinstance(one, PointExplained))
    if not table:
        return None
    notes = [
        "time lost: streaming time beyond the expected step. redline explain "
        f"{asked[0].id} shows why, stall by stall and request by request"
    ]
    if len(pairs) > MOST_POINTS:
        notes.append(f"the first {MOST_POINTS} of {len(pairs)} load points")
    return Section("explain", "Who was at it when time was lost", _HEADS, table, tuple(notes), brief=True)


def _row(one: PointExplained) -> tuple[str, ...]:
    found = one.explanation
    blamed = ", ".join(f"{blame.cause.text} {blame.explains:.0%}" for blame in found.blamed[:3]) or "nobody"
    return one.trial.engine, one.point.label, f"{found.lost_share:.0%}", blamed, f"{found.unexplained:.0%}"
