"""The report in a terminal: one comparison table per model, ratios with their intervals, verdicts and their reasons.

Where the terminal is wide enough (about 100 columns), engines are rows; else they are columns, a block per load point.
"""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from redline.analyse.comparison import EnginePoint, ModelComparison, PointComparison, Ratio
from redline.report.columns import (
    FOOTPRINT,
    FOOTPRINT_HEADS,
    RATIO_HEADS,
    any_shaky,
    arrow,
    cell,
    columns,
    failed_text,
    footprint_text,
    ratio_columns,
    reasons,
    shaky,
    slo_text,
)
from redline.report.headline import Claim, caveats, claims
from redline.report.model import EngineReport, ModelReport, Report, load_label, load_unit
from redline.report.numbers import FEW_NOTE, STATE_MARK, ratio_text
from redline.report.section import Section

MOST_REASONS = 10
STATE_STYLE = {"valid": "green", "degraded": "yellow", "client-bound": "red", "invalid": "red"}
OUTCOME_STYLE = {"better": "green", "worse": "red", "no detectable difference": "dim", "unknown": "dim"}
LEGEND = (
    "▲ better  ▼ worse  ≈ no detectable difference  ≤ at most, ≥ at least: slow ones cut off  ? cannot be said; [95 %]"
)


def print_report(report: Report, console: Console) -> None:
    """Everything that a reader of the terminal should see."""
    for part in _parts(report, console):
        console.print(part)


def _parts(report: Report, console: Console) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(banner, style="bold yellow") for banner in report.banners]
    for model in report.models:
        parts += _model(model, report, console)
    for section in report.sections:
        parts += section_parts(section) if section.brief else []
    parts += [Text.assemble(("not measured ", "yellow"), text) for text in report.missing]
    said = claims(report)
    parts += [Text(), *(_claim(claim, several=len(report.models) > 1) for claim in said)] if said else []
    return parts + [Text(caveat, style="dim") for caveat in caveats(report)]


def section_parts(section: Section) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(), Text(section.title, style="bold")]
    if section.rows:
        table = Table(*section.heads, box=None, header_style="bold", padding=(0, 2, 0, 0))
        for row in section.rows:
            table.add_row(*map(Text, row))
        parts.append(table)
    return parts + [Text(note, style="dim") for note in section.notes]


def _model(model: ModelReport, report: Report, console: Console) -> list[RenderableType]:
    comparison = model.comparison
    parts: list[RenderableType] = [Text(), Text(model.name, style="bold")]
    if comparison.points:
        wide = _wide(comparison, report)
        parts += [Text(), wide] if _fits(wide, console) else _narrow(comparison, report)
        if any(found.ratios for point in comparison.points for found in point.engines):
            parts += [Text(), *_ratios(comparison, report, console)]
        if any_shaky(comparison, report):
            parts.append(Text(FEW_NOTE, style="dim"))
    parts += [Text(), _footprint(model)]
    if report.promised:
        parts.append(Text(f"good: {slo_text(report)}", style="dim"))
    parts += _reasons(comparison)
    # an engine that was only served has nothing wrong with it
    return [*parts, *(_not_run(engine) for engine in model.engines if not engine.points and engine.status != "done")]


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")


def _fits(table: Table, console: Console) -> bool:
    roomy = console.options.update(max_width=1000)
    return console.measure(table, options=roomy).maximum <= console.width


def _wide(model: ModelComparison, report: Report) -> Table:
    table = _table()
    table.add_column(Text("\n" + _load_head(model)), justify="right", no_wrap=True)
    table.add_column("\nengine", no_wrap=True)
    for column in columns(report):
        table.add_column(f"{column.group}\n{column.head}", justify="right", no_wrap=True)
    table.add_column("\nfailed", justify="right", no_wrap=True)
    table.add_column("\n", no_wrap=True)
    for point in model.points:
        for i, found in enumerate(point.engines):
            cells = [Text(cell(found, c), style="dim" if shaky(found, c) else "") for c in columns(report)]
            failed = Text(failed_text(found), style="red" if found.counts.get("failed") else "dim")
            load = _load(model, point) if i == 0 else ""
            table.add_row(load, Text(found.label), *cells, failed, _mark(found))
        if len(point.engines) > 1:
            table.add_section()
    return table


def _load_head(model: ModelComparison) -> str:
    return load_unit(point.load for point in model.points)


def _load(model: ModelComparison, point: PointComparison) -> str:
    """The number alone where the head of the column says what it counts."""
    return load_label(point.load) if _load_head(model) == "load" else f"{point.load[1]:g}"


def _ratios(model: ModelComparison, report: Report, console: Console) -> list[RenderableType]:
    """Every other engine against the first; as many metrics as there is room for."""
    names = list(ratio_columns(report))
    for unwanted in ("", "goodput_per_s", "e2e_ms.p50", "itl_ms.p50"):
        names = [name for name in names if name != unwanted]
        table = _ratio_table(model, names)
        if _fits(table, console):
            break
    return [table, Text(LEGEND, style="dim")]


def _ratio_table(model: ModelComparison, names: list[str]) -> Table:
    table = _table()
    table.add_column(_load_head(model), justify="right", no_wrap=True)
    table.add_column(Text(f"÷ {model.reference}"), no_wrap=True)
    for name in names:
        table.add_column(RATIO_HEADS[name], no_wrap=True)
    before = None
    for point in model.points:
        for found in (found for found in point.engines if found.ratios):
            load = _load(model, point) if point.load != before else ""
            before = point.load
            table.add_row(load, Text(found.label), *(_ratio(found.ratios.get(name)) for name in names))
    return table


def _narrow(model: ModelComparison, report: Report) -> list[RenderableType]:
    """Metrics as rows, engines as columns."""
    return [part for point in model.points for part in (Text(), _block(point, report))]


def _block(point: PointComparison, report: Report) -> Table:
    table = _table()
    table.add_column(load_label(point.load), no_wrap=True)
    for found in point.engines:
        head = Text(found.label).append(f" {STATE_MARK[found.verdict.state]}", STATE_STYLE[found.verdict.state])
        table.add_column(head, justify="right", overflow="fold")
    group = ""
    for column in columns(report):
        group = column.group or group
        table.add_row(
            f"{group} {column.head}",
            *(Text(cell(found, column), style="dim" if shaky(found, column) else "") for found in point.engines),
        )
    table.add_row("failed", *(failed_text(found) for found in point.engines))
    return table


def _footprint(model: ModelReport) -> Table:
    feet = {foot.label: foot for foot in model.comparison.footprints}
    shown = [name for name in FOOTPRINT if any(name in foot.numbers for foot in feet.values())]
    table = _table()
    table.add_column("engine", overflow="fold")
    table.add_column("version", overflow="fold")
    for name in shown:
        table.add_column(FOOTPRINT_HEADS[name])
    for engine in model.engines:
        foot = feet.get(engine.label)
        cells = []
        for name in shown:
            text = Text(footprint_text(foot.numbers.get(name) if foot else None))
            if foot and name in foot.ratios:
                text.append("  ").append_text(_ratio(foot.ratios[name], interval=False))
            cells.append(text)
        table.add_row(Text(engine.label), Text(f"{engine.kind} {engine.version}".strip()), *cells)
    return table


def _reasons(model: ModelComparison) -> list[RenderableType]:
    found = reasons(model)
    lines: list[RenderableType] = [
        Text.assemble((f"{STATE_MARK[state]} {state}", STATE_STYLE[state]), f" {where}: {why}")
        for state, where, why in found[:MOST_REASONS]
    ]
    if len(found) > MOST_REASONS:
        lines.append(Text(f"… and {len(found) - MOST_REASONS} more reasons in the HTML report", style="dim"))
    return lines


def _not_run(engine: EngineReport) -> Text:
    return Text.assemble((engine.status, "yellow"), f" {engine.label}: ", engine.error.removeprefix("skipped: "))


def _claim(claim: Claim, several: bool) -> RenderableType:
    style = {"better": "bold green", "worse": "bold red"}.get(claim.outcome, "bold")
    text = Text(f"{claim.model}: " if several else "", style="bold").append(claim.text, style)
    tail = "; ".join(part for part in (claim.where, claim.why) if part)
    return Group(text, *([Text(f"  {tail}", style="dim")] if tail else []))


def _mark(found: EnginePoint) -> Text:
    return Text(STATE_MARK[found.verdict.state], style=STATE_STYLE[found.verdict.state])


def _ratio(ratio: Ratio | None, interval: bool = True) -> Text:
    if ratio is None:
        return Text("–", style="dim")
    return Text(arrow(ratio) + ratio_text(ratio, interval), style=OUTCOME_STYLE[ratio.outcome])
