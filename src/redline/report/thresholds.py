"""The thresholds of the experiment, each judged wherever it applies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redline.analyse.threshold import CANNOT_TELL, FAIL, NOT_JUDGED, PASS, Judged, judge_thresholds
from redline.report.model import ModelReport, Report, load_label
from redline.report.numbers import NONE, band, number
from redline.report.section import Section
from redline.spec.threshold import parse_threshold
from redline.store.read import Reader
from redline.store.rows import RunRow

MARKS = {PASS: "✓ pass", FAIL: "✗ fail", CANNOT_TELL: "? cannot tell", NOT_JUDGED: "? not judged"}


def unmet(report: Report) -> tuple[list[Judged], list[Judged]]:
    """Thresholds that are surely not met (exit code 5), and those that nothing can be said about (exit code 6)."""
    found = _judge((run.experiment for run in report.runs), report.models)
    failed, unjudged = ([one for one in found if one.outcome == outcome] for outcome in (FAIL, NOT_JUDGED))
    return failed, unjudged


def thresholds_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    found = _judge((row.experiment for row in rows), models)
    if not found:
        return None
    order = (FAIL, NOT_JUDGED, CANNOT_TELL, PASS)
    found.sort(key=lambda one: order.index(one.outcome))
    counts = ", ".join(f"{n} {word}" for word in order if (n := sum(one.outcome == word for one in found)))
    return Section(
        "thresholds",
        f"Thresholds: {counts}",
        ("threshold", "engine", "model", "load", "value", "95 % interval", "outcome", "why"),
        tuple(_row(one) for one in found),
        ("fail: all of the interval lies on the wrong side; cannot tell: it holds the limit; not judged: no number",),
        brief=True,
    )


def _judge(experiments: Iterable[Mapping[str, Any]], models: Sequence[ModelReport]) -> list[Judged]:
    texts = dict.fromkeys(text for experiment in experiments for text in experiment.get("thresholds") or ())
    return judge_thresholds([model.comparison for model in models], [parse_threshold(text) for text in texts])


def _row(one: Judged) -> tuple[str, ...]:
    share = one.threshold.metric.endswith(("_share", "attainment"))
    value = (f"{one.value:.2%}" if share and one.value == one.value else number(one.value)) if one.load else NONE
    around = f"{one.interval.low:.2%}–{one.interval.high:.2%}" if share and one.interval else band(one.interval)
    where = load_label(one.load) if one.load else NONE
    return (
        one.threshold.text, one.engine or NONE, one.model or NONE, where, value, around or NONE, MARKS[one.outcome],
        one.note,
    )  # fmt: skip
