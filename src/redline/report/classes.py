"""The classes of a mixed workload, each with its own tails, failures and promise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from redline.analyse.classes import ClassSummary
from redline.analyse.comparison import Load
from redline.analyse.finding import Finding
from redline.analyse.percentile import LEVELS
from redline.report.columns import terms_text
from redline.report.model import Measured, ModelReport, load_label
from redline.report.numbers import NONE, few_notes, number, percentile_text
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

_HEADS = ("load", "class", "requests", "TTFT p50/p99", "ITL p99", "E2E p50/p99 ms", "good/s", "kept SLO", "failed")


def classes_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when no request had a class."""
    table: list[tuple[str, ...]] = []
    several = len(models) > 1 or any(len(model.engines) > 1 for model in models)
    notes: dict[str, None] = {}
    for model in models:
        for load, engine, found in _points(model):
            for name in found[0].summary.classes:
                classes = [one.summary.classes[name] for one in found if name in one.summary.classes]
                who = (f"{model.name} · {engine}" if len(models) > 1 else engine,) if several else ()
                table.append((*who, load_label(load), *_cells(classes)))
                notes |= dict.fromkeys(_notes(classes[0]))
    if not table:
        return None
    return Section(
        "classes",
        "Classes of requests",
        (("engine", *_HEADS) if several else _HEADS),
        tuple(table),
        (*notes, *few_notes(table)),
        brief=True,
    )


def _points(model: ModelReport) -> list[tuple[Load, str, tuple[Measured, ...]]]:
    return [
        (point.load, engine.label, engine.points[point.load])
        for point in model.comparison.points
        for engine in model.engines
        if point.load in engine.points and engine.points[point.load][0].summary.classes
    ]


def _cells(classes: Sequence[ClassSummary]) -> tuple[str, ...]:
    """One class over all repeats: counts are sums, numbers are means."""
    counted, failed = sum(one.counted for one in classes), sum(one.failed for one in classes)
    share = _mean([one.share for one in classes])

    def said(*names: str) -> str:
        return " / ".join(
            _number(name, [one.findings[name] for one in classes if name in one.findings]) for name in names
        )

    cells = (
        said("ttft_ms.p50", "ttft_ms.p99"),
        said("itl_ms.p99"),
        said("e2e_ms.p50", "e2e_ms.p99"),
        said("goodput_per_s"),
    )
    requests = f"{counted} ({share:.0%})" if not math.isnan(share) else str(counted)
    return (classes[0].name, requests, *cells, _kept(classes), str(failed))


def _number(name: str, found: Sequence[Finding]) -> str:
    """A number over all repeats; a percentile is as good as that of the repeat with the fewest requests."""
    value = _mean([one.value for one in found])
    level = LEVELS.get(name.rpartition(".")[2])
    return number(value) if level is None else percentile_text(value, level, min((one.of for one in found), default=0))


def _kept(classes: Sequence[ClassSummary]) -> str:
    share = _mean([one.value("slo_attainment") for one in classes])
    if math.isnan(share):
        return NONE
    return f"{share:.1%} {'✓' if share >= classes[0].promise.attainment else '✗'}"


def _notes(one: ClassSummary) -> list[str]:
    text = terms_text(one.promise.terms, one.promise.attainment)
    return [f"{one.name}: {text}"] if text else []


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
