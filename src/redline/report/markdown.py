"""The report as Markdown: numbers, verdicts, evidence and everything needed to do it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from redline.analyse.comparison import ModelComparison
from redline.report.columns import (
    FOOTPRINT,
    FOOTPRINT_HEADS,
    RATIO_HEADS,
    any_shaky,
    arrow,
    cell,
    columns,
    definitions_used,
    failed_text,
    footprint_text,
    ratio_columns,
    reasons,
    slo_text,
)
from redline.report.evidence import box_line, box_rows, counts_text, proofs, tally_text, window_text
from redline.report.headline import caveats, claims
from redline.report.model import EngineReport, ModelReport, Report, RunInfo, load_label
from redline.report.numbers import FEW_NOTE, STATE_MARK, number, ratio_text
from redline.report.section import Section

Lines = Iterator[str]


def render_markdown(report: Report, pictures: Sequence[str | Path] = ()) -> str:
    """`pictures` are paths of charts to show, relative to where the text will lie."""
    parts: list[Lines] = [_head(report), *(_model(model, report) for model in report.models)]
    parts += [_section(section) for section in report.sections]
    parts += [_pictures(pictures), _evidence(report), _definitions(report), _engines(report)]
    parts += [_run(run) for run in report.runs]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _head(report: Report) -> Lines:
    yield f"# {_safe(report.title)}"
    yield ""
    for text in (*report.banners, *(f"Not measured: {text}" for text in report.missing)):
        yield from (f"> **{_safe(text)}**", "")
    for claim in claims(report):
        tail = "; ".join(part for part in (claim.where, claim.why) if part)
        model = f"{claim.model}: " if len(report.models) > 1 else ""
        yield f"- **{_safe(model + claim.text)}**" + (f" ({_safe(tail)})" if tail else "")
    for caveat in caveats(report):
        yield f"- {_safe(caveat)}"
    yield ""


def _model(model: ModelReport, report: Report) -> Lines:
    comparison = model.comparison
    yield from (f"## {_safe(model.name)}", "")
    if comparison.points:
        yield from _numbers(comparison, report)
        yield from _ratios(comparison, report)
    yield from _footprint(model)
    found = reasons(comparison)
    for state, where, why in found:
        yield f"- {STATE_MARK[state]} **{state}** {_safe(where)}: {_safe(why)}"
    for engine in model.engines:
        if not engine.points:
            why = engine.error.removeprefix("skipped: ") or "nothing was measured"
            yield f"- **{engine.status}** {_safe(engine.label)}: {_safe(why)}"
    yield ""


def _numbers(model: ModelComparison, report: Report) -> Lines:
    group, heads = "", []
    for column in columns(report):
        group = column.group or group
        heads.append(f"{group} {column.head}")
    yield _row(["load", "engine", *heads, "failed", "verdict"])
    yield _row(["---", "---", *["--:"] * len(heads), "--:", "---"])
    for point in model.points:
        for found in point.engines:
            cells = [cell(found, c) for c in columns(report)]
            state = f"{STATE_MARK[found.verdict.state]} {found.verdict.state}"
            yield _row([load_label(point.load), found.label, *cells, failed_text(found), state])
    yield ""
    if any_shaky(model, report):
        yield from (f"{FEW_NOTE}.", "")
    if report.promised:
        yield from (f"Good: {slo_text(report)}.", "")


def _ratios(model: ModelComparison, report: Report) -> Lines:
    names = ratio_columns(report)
    others = [(point, found) for point in model.points for found in point.engines if found.ratios]
    if not others:
        return
    yield from (f"Ratio to {_safe(model.reference)}, with 95 % interval:", "")
    yield _row(["load", "engine", *(RATIO_HEADS[name] for name in names)])
    yield _row(["---"] * (2 + len(names)))
    for point, found in others:
        cells = [arrow(found.ratios.get(name)) + ratio_text(found.ratios.get(name)) for name in names]
        yield _row([load_label(point.load), found.label, *cells])
    bounds = "≤ at most, ≥ at least (slow ones were cut off)"
    yield from ("", f"▲ better, ▼ worse, ≈ no detectable difference, {bounds}, ? cannot be said.", "")


def _footprint(model: ModelReport) -> Lines:
    feet = {foot.label: foot for foot in model.comparison.footprints}
    shown = [name for name in FOOTPRINT if any(name in foot.numbers for foot in feet.values())]
    yield _row(["engine", "version", *(FOOTPRINT_HEADS[name] for name in shown)])
    yield _row(["---", "---", *["--:"] * len(shown)])
    for engine in model.engines:
        foot = feet.get(engine.label)
        cells = []
        for name in shown:
            ratio = foot.ratios.get(name) if foot else None
            text = footprint_text(foot.numbers.get(name) if foot else None)
            cells.append(f"{text} ({arrow(ratio)}{ratio_text(ratio, interval=False)})" if ratio else text)
        yield _row([engine.label, f"{engine.kind} {engine.version}".strip(), *cells])
    yield ""


def _section(section: Section) -> Lines:
    yield from (f"## {_safe(section.title)}", "")
    if section.rows:
        yield _row(section.heads)
        yield _row(["---"] * len(section.heads))
        yield from map(_row, section.rows)
        yield ""
    yield from (f"- {_safe(note)}" for note in section.notes)
    yield ""


def _pictures(pictures: Sequence[str | Path]) -> Lines:
    if pictures:
        yield from ("## Charts", "")
    for picture in pictures:
        yield from (f"![{Path(picture).stem}]({picture})", "")


def _evidence(report: Report) -> Lines:
    yield from ("## Evidence", "")
    yield "What lies behind the numbers, and the SQL (`redline sql`) that gives latencies and output tokens again:"
    yield ""
    for model in report.models:
        for engine in model.engines:
            for load, found in engine.points.items():
                for measured in found:
                    summary = measured.summary
                    again = f", {measured.again}" if len(found) > 1 else ""
                    where = f"{model.name} · {engine.label} · {load_label(load)}{again}"
                    yield f"<details><summary>{_safe(where)}</summary>"
                    yield ""
                    yield f"- run `{measured.run_id}`, trial {measured.trial_id}, point {measured.point_id}"
                    yield f"- requests: {counts_text(summary)}"
                    yield f"- steady window: {window_text(measured)}"
                    yield f"- tokens counted by: {tally_text(summary.token_sources) or 'nobody'}"
                    yield f"- arrivals stamped by: {tally_text(summary.stamps) or 'nobody'}"
                    yield from (f"- {_safe(reason)}" for reason in summary.verdict.reasons)
                    yield from (f"- {count} × {status} {_safe(error)}" for status, _, error, count in measured.errors)
                    yield from ("", "```sql")
                    for proof in proofs(measured):
                        yield f"-- {proof.name} = {number(proof.value)} {proof.unit}"
                        yield proof.sql + ";"
                    yield from ("```", "", "</details>", "")


def _definitions(report: Report) -> Lines:
    yield from ("## Definitions", "", _row(["id", "unit", "definition"]), _row(["---"] * 3))
    for name, unit, text in definitions_used(report):
        yield _row([f"`{name}`", unit, text])
    yield ""


def _engines(report: Report) -> Lines:
    yield from ("## Engines", "")
    for model in report.models:
        for engine in model.engines:
            yield from _engine(engine, model.name)


def _engine(engine: EngineReport, model: str) -> Lines:
    yield from (f"### {_safe(engine.label)} on {_safe(model)}", "")
    asked = ", ".join(f"`{name}={value}`" for name, value in (engine.asked.get("flags") or {}).items())
    yield f"- flags asked for: {asked or 'none'}"
    for start in engine.starts:
        phases = ", ".join(f"{phase} {number(ms / 1000)} s" for phase, ms in start.startup_ms.items())
        yield f"- start {start.repeat + 1} ({start.status}): {phases or _safe(start.error) or 'never ready'}"
    for name, value in engine.hashes.items():
        yield f"- {name}: `{value}`"
    yield ""
    if engine.flags:
        yield from ("<details><summary>flags that the engine resolved</summary>", "")
        yield from _block(f"{name}={value}" for name, value in engine.flags.items())
        yield from ("", "</details>", "")


def _run(run: RunInfo) -> Lines:
    yield from (f"## Run {run.id}", "")
    experiment = f"experiment `{run.experiment_hash}`, {run.status}"
    yield f"Started {run.started_wall}, redline {run.redline_version}, {experiment}."
    yield from ("", f"Box: {_safe(box_line(run.provenance))}", "")
    yield from ("<details><summary>everything recorded about the box</summary>", "")
    yield from _block(f"{name}: {value}" for name, value in box_rows(run.provenance))
    yield from ("", "</details>", "")
    if run.repeatable:
        yield from ("To do it again:", "", "```sh", "redline compare -f experiment.yaml", "```", "")
    yield from (f"It was started as `{shlex.join(run.argv)}`." if run.argv else "", "")
    yield from ("<details><summary>experiment.yaml</summary>", "")
    yield from _block([run.yaml.rstrip()], "yaml")
    yield from ("", "</details>", "")


def _block(lines: Iterable[str], language: str = "") -> Lines:
    """As they are: the fence is longer than any in them, such as in a prompt or a chat template."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    yield from (fence + language, *text.splitlines(), fence)


def section_lines(section: Section) -> list[str]:
    """One section as lines of Markdown."""
    return list(_section(section))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_safe(cell).replace("|", "\\|") for cell in cells) + " |"


def _safe(text: str) -> str:
    """On one line, and no HTML of its own."""
    return " ".join(text.split()).replace("<", "&lt;") if text.strip() not in ("---", "--:") else text
