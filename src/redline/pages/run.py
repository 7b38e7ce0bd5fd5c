"""One run: what is known at once on the page itself, what takes seconds to compute as a part that follows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redline.errors import UsageError
from redline.pages.desk import Desk
from redline.pages.figures import distribution_figures, load_figures, place
from redline.report import evidence
from redline.report.html import render_html, views
from redline.report.markdown import render_markdown
from redline.report.model import Measured, ModelReport, Report, load_label
from redline.store.rows import RunRow, TrialRow

FORMS = {"html": "text/html", "md": "text/markdown", "json": "application/json"}


def run_page(desk: Desk, request: Request) -> Response:
    with desk.open() as reader:
        row = reader.run(request.path_params["run"])
        counts = reader.points_counts(row.id)
        lines = reader.run_lines() if row.status == "running" else []
    earlier = [line.id for line in lines if line.id != row.id][:1]
    return desk.page(
        request, "run", run=row, title=title(row), counts=counts, box=evidence.box_line(row.provenance),
        box_rows=evidence.box_rows(row.provenance), command=shlex.join(row.argv), yaml=experiment_text(row),
        live=row.status == "running", earlier=earlier, ready=desk.library.has_report(row.id),
        failed_trials=[trial for trial in row.trials if trial.error], phases=phases(row.trials),
    )  # fmt: skip


def title(row: RunRow) -> str:
    """Its name, or who ran on what."""
    if row.name:
        return row.name
    engines = " vs ".join(row.engines) if len(row.engines) < 4 else f"{len(row.engines)} engines"
    return f"{engines or 'no engine'} on {', '.join(row.models) or 'no model'}"


def phases(trials: Sequence[TrialRow]) -> list[tuple[TrialRow, list[tuple[str, float, float]], float]]:
    """Of every start: (phase, seconds, share of the longest start)."""
    longest = max((trial.startup_ms.get("total", 0.0) for trial in trials), default=0.0) or 1.0
    return [
        (
            trial,
            [(name, ms / 1000, 100 * ms / longest) for name, ms in trial.startup_ms.items() if name != "total"],
            trial.startup_ms.get("total", 0.0) / 1000,
        )
        for trial in trials
    ]


def experiment_text(row: RunRow) -> str:
    """In the form that `redline compare -f` reads back."""
    from redline.report.assemble import experiment_yaml

    return experiment_yaml(row.experiment)


def findings_part(desk: Desk, request: Request) -> Response:
    """Everything that is computed of the stored requests."""
    report = desk.library.report(request.path_params["run"])
    seen = views(report)
    for model, shown in zip(report.models, seen["models"], strict=True):
        shown["figures"] = load_figures(model, report)
        shown["where"] = {(load_label(load), e.label): one for e in model.engines for load, one in e.points.items()}
        shown["spread"] = _distributions(model, report)
    return desk.page(request, "part_findings", one=len(report.models) == 1, **seen)


def _distributions(model: ModelReport, report: Report) -> list[tuple[str, list[dict[str, Any]]]]:
    """Of every load point, all engines in one picture."""
    found = []
    for point in model.comparison.points:
        lines: list[tuple[str, int, Measured]] = [
            (engine.label, place(report, engine.label), engine.points[point.load][0])
            for engine in model.engines
            if engine.points.get(point.load)
        ]
        if figures := distribution_figures(lines):
            found.append((load_label(point.load), figures))
    return found


def report_file(desk: Desk, request: Request) -> Response:
    """The report as a file to keep or to send: it needs nothing else."""
    form = request.path_params["form"]
    if form not in FORMS:
        raise UsageError(f"there is no report as {form!r}", fix=f"one of {', '.join(FORMS)}")
    report = desk.library.report(request.path_params["run"])
    if form == "json":
        import orjson

        from redline.report.plain import as_dict

        body = orjson.dumps(as_dict(report), option=orjson.OPT_INDENT_2)
    else:
        body = (render_html(report) if form == "html" else render_markdown(report, [])).encode()
    name = f"redline-{report.runs[0].id}.{form}"
    return Response(body, media_type=FORMS[form], headers={"content-disposition": f'attachment; filename="{name}"'})
