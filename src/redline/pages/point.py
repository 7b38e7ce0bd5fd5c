"""One load point: its findings with intervals and ceilings; behind each the definition, the SQL and the requests."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from redline.analyse.finding import Finding
from redline.analyse.percentile import LEVELS, is_maximum_of, rank
from redline.errors import UsageError
from redline.pages.desk import Desk
from redline.pages.figures import distribution_figures, place, timeline_figures
from redline.report import evidence
from redline.report.model import EngineReport, Measured, Report
from redline.report.numbers import FEW_MARK, band, metric_name, number
from redline.store.rows import PointRow, RunRow, TrialRow
from redline.units import DEFINITIONS

GROUPS = (
    ("Throughput", ("output_tokens_per_s", "input_tokens_per_s", "total_tokens_per_s", "requests_per_s",
                    "goodput_per_s")),
    ("Latency", ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms")),
    ("From the actual send", ("ttft_ms.sent", "e2e_ms.sent")),
    ("Successes only", ("ttft_ms.ok", "itl_ms.ok", "tpot_ms.ok", "e2e_ms.ok")),
    ("Shares and sizes", ("slo_attainment", "failed_share", "cut_off_share", "cached_share", "in_flight", "sent_per_s",
                          "prompt_tokens", "output_tokens")),
)  # fmt: skip
NAMES = {"ttft_ms.sent": "TTFT from the send", "e2e_ms.sent": "E2E from the send"}


@dataclass(frozen=True)
class Cell:
    """One number and what stands behind it. `sql` '' where no statement gives it again; `at` leads to the request that
    the percentile is the latency of."""

    finding: Finding
    text: str
    band: str
    ceiling: str
    shaky: bool
    sql: str = ""
    at: str = ""
    level: str = ""


@dataclass(frozen=True)
class Line:
    """A metric: one cell, or one for each percentile."""

    name: str
    unit: str
    definition: str
    said: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Group:
    title: str
    percentiles: bool
    lines: tuple[Line, ...] = field(default=())


def find(run: RunRow, point_id: int) -> tuple[TrialRow, PointRow]:
    """A load point of a run, and its start of an engine."""
    found = [(trial, point) for trial in run.trials for point in trial.points if point.id == point_id]
    if not found:
        raise _no_point(point_id)
    return found[0]


def point_page(desk: Desk, request: Request) -> Response:
    point_id = request.path_params["point"]
    with desk.open() as reader:
        run = known(reader.run_of_point(point_id), point_id)
        trial, point = find(run, point_id)
        counts = desk.library.request_counts(reader, point)
    beside = [(t, p) for t in run.trials for p in t.points]
    at = next(i for i, (_, p) in enumerate(beside) if p.id == point_id)
    return desk.page(
        request, "point", run=run, trial=trial, point=point, counts=counts, account=account(point.outcome),
        before=beside[at - 1] if at else None, after=beside[at + 1] if at + 1 < len(beside) else None,
        live=run.status == "running" and not point.complete,
    )  # fmt: skip


def known(run: RunRow | None, point_id: int) -> RunRow:
    if run is None:
        raise _no_point(point_id)
    return run


def _no_point(point_id: int) -> UsageError:
    return UsageError(
        f"there is no load point {point_id}", why="its run may have been deleted", fix="start at the list of runs"
    )


def findings_part(desk: Desk, request: Request) -> Response:
    point_id = request.path_params["point"]
    with desk.open() as reader:
        run = known(reader.run_of_point(point_id), point_id)
    report = desk.library.report(run.id)
    engine, measured = measured_of(report, point_id)
    colour = place(report, engine.label)
    return desk.page(
        request, "part_point", measured=measured, summary=measured.summary, groups=groups(measured),
        ceilings=any(one.ceiling is not None for one in measured.summary.findings.values()),
        timeline=timeline_figures(measured, colour), engine=engine, run=run,
        distributions=distribution_figures([(engine.label, colour, measured)]),
        counts=evidence.counts_text(measured.summary), window=evidence.window_text(measured),
        chunks=evidence.chunks_text(measured.summary) if measured.summary.tokens_per_chunk else "none",
        sources=evidence.tally_text(measured.summary.token_sources) if measured.summary.token_sources else "nobody",
        stamps=evidence.tally_text(measured.summary.stamps) if measured.summary.stamps else "nobody",
    )  # fmt: skip


def measured_of(report: Report, point_id: int) -> tuple[EngineReport, Measured]:
    """UsageError for a point that was cut off and measured again: no number is taken of it."""
    for model in report.models:
        for engine in model.engines:
            for points in engine.points.values():
                for measured in points:
                    if measured.point_id == point_id:
                        return engine, measured
    raise UsageError(
        "no number is taken of this load point",
        why="it was cut off and measured again when the run was resumed",
        fix="its requests are still there",
    )


def groups(measured: Measured) -> list[Group]:
    proofs = {proof.name: proof.sql for proof in evidence.proofs(measured)}
    found = []
    for title, names in GROUPS:
        lines = tuple(line for name in names if (line := _line(measured, name, proofs)))
        if title == "Successes only" and not measured.summary.counts["failed"]:
            continue
        if lines:
            found.append(Group(title, len(lines[0].cells) > 1, lines))
    return found


def _line(measured: Measured, name: str, proofs: dict[str, str]) -> Line | None:
    findings = measured.summary.findings
    keys = [name] if name in findings else [f"{name}.{level}" for level in LEVELS if f"{name}.{level}" in findings]
    cells = tuple(_cell(measured, findings[key], proofs) for key in keys)
    if not cells or all(math.isnan(cell.finding.value) for cell in cells):
        return None
    first = cells[0].finding
    definition = DEFINITIONS.get(first.definition)
    head = NAMES.get(name) or metric_name(name).replace("_", " ")
    return Line(head, first.unit, first.definition, definition.text if definition else "", cells)


def _cell(measured: Measured, finding: Finding, proofs: dict[str, str]) -> Cell:
    share = finding.unit == "share"
    interval = finding.interval
    said = "" if interval is None else f"{interval.low:.1%}–{interval.high:.1%}" if share else band(interval)
    text = f"{finding.value:.1%}" if share and not math.isnan(finding.value) else number(finding.value)
    few = is_maximum_of(finding.name, finding.of)
    metric, _, level = finding.name.rpartition(".")
    at = f"{metric.removesuffix('_ms')}.{level}" if metric in ("ttft_ms", "e2e_ms") else ""
    return Cell(
        finding=finding,
        text=text + (FEW_MARK if few else ""),
        band=said,
        ceiling="" if finding.ceiling is None else number(finding.ceiling),
        shaky=few,
        sql=proofs.get(finding.name, ""),
        at=at,
        level=level if level in LEVELS else "",
    )


def request_at(desk: Desk, request: Request) -> Response:
    """To the request whose latency is the percentile, such as `ttft.p99`."""
    point_id = request.path_params["point"]
    metric, _, level = request.path_params["metric"].partition(".")
    if metric not in ("ttft", "e2e") or level not in LEVELS:
        raise UsageError(f"there is no percentile {metric}.{level} to go to", fix="ttft.p99, e2e.p50, …")
    with desk.open() as reader:
        _, point = find(known(reader.run_of_point(point_id), point_id), point_id)
        counted = desk.library.request_counts(reader, point)["counted"]
        found = reader.ranked(point_id, metric, rank(counted, LEVELS[level]))
    if found is None:
        raise UsageError("there is no request that counts at this load point")
    return RedirectResponse(f"/request/{found}", 303)


def account(outcome: dict[str, Any]) -> list[tuple[str, str]]:
    """What the load generator, the box and the server said, flat; long lists are cut."""
    rows = evidence.box_rows({name: value for name, value in outcome.items() if value not in (None, "", [], {})})
    return [(name, text if len(text) < 400 else f"{text[:400]}…") for name, text in rows][:400]
