"""Any two stored runs set against each other, as `redline compare A B` does it."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from redline.analyse.comparison import BETTER, UNKNOWN, WORSE
from redline.analyse.effect import UNCHANGED, Effect
from redline.errors import UsageError
from redline.pages.desk import Desk
from redline.report.numbers import metric_name, number
from redline.report.versus import METRICS, VersusPoint, metrics_of
from redline.report.versus_text import effect_rows, footnotes, headline, sections

OUTCOME = {BETTER: "better", WORSE: "worse", UNCHANGED: "same", UNKNOWN: "unknown"}
MOST_RUNS = 400


def compare_page(desk: Desk, request: Request) -> Response:
    query = request.query_params
    picked = query.getlist("run")
    if picked:  # two were ticked in the list of runs: the older one is A
        if len(picked) != 2:
            raise UsageError(f"{len(picked)} run{'s' if len(picked) > 1 else ''} picked, and a comparison takes two")
        return RedirectResponse("/compare?" + urlencode({"a": min(picked), "b": max(picked)}), 303)
    with desk.open() as reader:
        lines = reader.run_lines()[:MOST_RUNS]
    a, b = query.get("a", ""), query.get("b", "")
    sides = [(line.id, line) for line in lines]
    chosen = query.getlist("metric")
    asked = urlencode([("a", a), ("b", b), ("tolerance", query.get("tolerance", "")), *(("metric", m) for m in chosen)])
    return desk.page(
        request, "compare", sides=sides, a=a, b=b, tolerance=query.get("tolerance", ""), metrics=METRICS, chosen=chosen,
        asked=asked if a and b else "",
    )  # fmt: skip


def tolerance_of(text: str) -> float:
    """Percent as a share."""
    try:
        value = float(text or 0) / 100
    except ValueError:
        raise UsageError(f"a tolerance of {text!r} is no number", fix="percent, such as 2") from None
    if not 0 <= value < 1:
        raise UsageError(f"a tolerance of {text} % makes no sense", fix="between 0 and 100 %")
    return value


def result_part(desk: Desk, request: Request) -> Response:
    query = request.query_params
    metrics = metrics_of(query.getlist("metric"))
    versus = desk.library.versus(
        query.get("a", ""), query.get("b", ""), metrics, tolerance_of(query.get("tolerance", ""))
    )
    tables = [section for section in sections(versus) if not section.key.startswith("versus-")]
    pairs = []
    for pair, said, differing in zip(versus.pairs, _notes(versus), tables, strict=True):
        reach = _reach([one for point in pair.points for one in point.effects])
        pairs.append(
            {"pair": pair, "notes": said, "differing": differing, "scale": _scale(reach),
             "points": [(point, _rows(point, reach)) for point in pair.points]}
        )  # fmt: skip
    tone = "worse" if versus.regressions else "better" if BETTER in versus.headline else "same"
    return desk.page(
        request, "part_versus", versus=versus, pairs=pairs, headline=headline(versus), footnotes=footnotes(versus),
        tone=tone, command=_command(versus, query.getlist("metric")),
    )  # fmt: skip


def _command(versus: Any, metrics: list[str]) -> str:
    words = ["redline compare", versus.a, versus.b, *(f"--metric {name}" for name in metrics)]
    return " ".join([*words, *([f"--tolerance {100 * versus.tolerance:g}"] if versus.tolerance else [])])


def _notes(versus: Any) -> list[list[str]]:
    """What stands below the table of each pair; who A and B are is said above it."""
    found = [section.notes for section in sections(versus) if section.key.startswith("versus-")]
    return [[note for note in notes if not note.startswith(("A = ", "B = "))] for notes in found]


def _rows(point: VersusPoint, reach: float) -> list[dict[str, Any]]:
    shown = [one for one in point.effects if not (math.isnan(one.a) and math.isnan(one.b))]
    return [
        {"metric": metric_name(one.metric), "cells": cells, "outcome": OUTCOME[one.outcome], "bar": _bar(one, reach),
         "regression": one.regression, "note": one.note}
        for one, cells in zip(shown, effect_rows(point), strict=True)
    ]  # fmt: skip


def _reach(effects: list[Effect]) -> float:
    """How far the axis goes: the ends of all intervals, within reason."""
    ends = [
        max(end, 1 / end)
        for one in effects
        if one.interval and not one.is_share
        for end in (one.interval.low, one.interval.high)
        if 0 < end < math.inf
    ]
    return min(max([1.1, *ends]), 20.0) * 1.04


def _at(value: float, reach: float) -> float:
    held = min(max(value, 1 / reach), reach)
    return round(50 + 50 * math.log(held) / math.log(reach), 2)


def _bar(one: Effect, reach: float) -> dict[str, float] | None:
    """Where the interval of B / A lies on a logarithmic axis, in percent."""
    if one.is_share or not 0 < one.ratio < math.inf:
        return None
    low, high = (one.interval.low, one.interval.high) if one.interval else (one.ratio, one.ratio)
    left, right = _at(max(low, 1e-9), reach), _at(high, reach)
    return {"left": left, "width": round(right - left, 2), "at": _at(one.ratio, reach)}


def _scale(reach: float) -> list[tuple[float, str]]:
    steps = (
        (0.25, 0.5, 1, 2, 4) if reach > 2.2 else (0.5, 0.8, 1, 1.25, 2) if reach > 1.3 else (0.9, 0.95, 1, 1.05, 1.1)
    )
    return [
        (_at(step, reach), f"{number(step).rstrip('0').rstrip('.')}×") for step in steps if 1 / reach < step < reach
    ]
