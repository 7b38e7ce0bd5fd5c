"""A comparison of stored runs for people and programs: sections for the terminal and Markdown, a page, and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from redline.analyse.comparison import BETTER, UNKNOWN, WORSE
from redline.analyse.effect import UNCHANGED, Effect
from redline.analyse.finding import Interval
from redline.report.markdown import section_lines
from redline.report.numbers import metric_name, number, points
from redline.report.plain import clean
from redline.report.section import Section
from redline.report.table import section_parts
from redline.report.versus import Versus, VersusPair, VersusPoint

MARKS = {BETTER: "▲", WORSE: "▼", UNCHANGED: "=", UNKNOWN: "?"}
STYLES = {"▲": "green", "▼": "red"}
MOST_FIELDS = 12
HEADS = ("load", "metric", "A", "B", "B / A", "95 % interval", "difference", "", "verdict")


def sections(versus: Versus, *, brief: bool = False) -> tuple[Section, ...]:
    """One table of effects per pair, and one of what differs; `brief` keeps only fields that matter for speed."""
    return tuple(part for pair in versus.pairs for part in _pair(pair, versus, brief))


def print_versus(versus: Versus, console: Console) -> None:
    console.print(Text(headline(versus), style="bold red" if versus.regressions else "bold"))
    for section in sections(versus, brief=True):
        for part in section_parts(section):
            console.print(part)
    for line in footnotes(versus):
        console.print(Text(line, style="dim"))


def markdown(versus: Versus) -> str:
    """For a comment on a pull request: what counts first, what differs folded away."""
    lines = [f"## {headline(versus)}", ""]
    for section in sections(versus):
        if section.key.startswith("differing"):
            lines += [f"<details><summary>{section.title}</summary>", "", *section_lines(section)[2:], "</details>", ""]
        else:
            lines += section_lines(section)
            lines.append("")
    lines += [f"- {line}" for line in footnotes(versus)]
    return "\n".join(lines).rstrip() + "\n"


def html(versus: Versus) -> str:
    from redline.report.versus_page import page

    return page(headline(versus), sections(versus), footnotes(versus))


def headline(versus: Versus) -> str:
    """`B against A: 2 worse, 7 with no detectable change; 1 regression beyond 2 %`."""
    text = f"B against A: {versus.headline}"
    count = len(versus.regressions)
    if count:
        text += f"; {count} regression{'s' if count > 1 else ''}"
        text += f" beyond {percent(versus.tolerance)}" if versus.tolerance else ""
    if versus.barred:
        text += f"; {len(versus.barred)} load point{'s' if len(versus.barred) > 1 else ''} cannot be compared"
    return text


def footnotes(versus: Versus) -> list[str]:
    return [
        f"{versus.tested} effects were judged together: at most 5 % chance of any false alarm among them (Holm); "
        "intervals are 95 % each.",
        "▲ better, ▼ worse, = no detectable change: data like this finds one of the size given four times in five.",
    ]


def percent(share: float) -> str:
    """`3 %`, `0.25 %`, `>100 %`."""
    if math.isnan(share):
        return "–"
    return f"{number(100 * share)} %" if share < 10 else "×" + number(1 + share)


def verdict_text(one: Effect) -> str:
    if one.outcome == UNCHANGED:
        size = f"{points(one.detectable)} points" if one.is_share else percent(one.detectable)
        return f"no detectable change below {size}"
    return one.outcome + (": regression" if one.regression else "")


def _pair(pair: VersusPair, versus: Versus, brief: bool) -> Iterator[Section]:
    rows = [row for point in pair.points for row in effect_rows(point)]
    notes = [f"A = {pair.a}", f"B = {pair.b}"]
    notes += [f"{point.label}: not compared, {point.barred}" for point in pair.points if point.barred]
    notes += [f"{point.label}: {doubt}" for point in pair.points for doubt in point.doubts]
    notes += [f"only A has {label}" for label in pair.only_a] + [f"only B has {label}" for label in pair.only_b]
    remarks: dict[str, list[str]] = {}
    for point in pair.points:
        for one in point.effects:
            if one.note:
                remarks.setdefault(one.note, []).append(metric_name(one.metric))
    notes += [
        f"{', '.join(dict.fromkeys(names)) if len(names) < 5 else f'{len(names)} numbers'}: {note}"
        for note, names in remarks.items()
    ]
    methods = dict.fromkeys(one.method for point in pair.points for one in point.effects if one.method)
    notes += [f"error from {', '.join(methods)}"] if methods else []
    yield Section(f"versus-{pair.b}-{pair.model}", f"{pair.model}: B against A", HEADS, tuple(rows), tuple(notes), True)
    shown = [one for one in pair.differing if one.matters or not brief]
    if not pair.differing:
        yield Section(f"differing-{pair.b}-{pair.model}", "Nothing recorded differs between A and B", brief=True)
        return
    matter = sum(one.matters for one in pair.differing)
    title = f"{len(pair.differing)} recorded fields differ, {matter} of which can matter for speed"
    cut = shown[:MOST_FIELDS] if brief else shown
    yield Section(
        f"differing-{pair.b}-{pair.model}", title, ("field", "A", "B", "speed"),
        tuple((one.field, one.a, one.b, "matters" if one.matters else "") for one in cut),
        (f"and {len(shown) - len(cut)} more: --json lists all",) if len(shown) > len(cut) else (), True,
    )  # fmt: skip


def effect_rows(point: VersusPoint) -> Iterator[tuple[str, ...]]:
    """One row per metric that either side has, below `HEADS`."""
    for one in point.effects:
        if math.isnan(one.a) and math.isnan(one.b):
            continue
        if one.is_share:
            cells = [
                f"{one.a:.2%}",
                f"{one.b:.2%}",
                "–",
                _band(one.difference_interval, 100),
                f"{'+' if one.difference > 0 else ''}{points(one.difference)} points",
            ]
        else:
            change = "–" if math.isnan(one.difference) else ("+" if one.difference > 0 else "") + number(one.difference)
            ratio = "–" if math.isnan(one.ratio) else f"{one.ratio:.{digits(one.interval)}f}×"
            cells = [number(one.a), number(one.b), ratio, _band(one.interval, 1), change]
        yield (point.label, metric_name(one.metric), *cells, MARKS[one.outcome], verdict_text(one))


def digits(interval: Interval | None) -> int:
    """Decimals that show how wide the interval is."""
    if interval is None or not 0 < interval.high - interval.low < math.inf:
        return 3
    return min(max(2, math.ceil(-math.log10(interval.high - interval.low)) + 1), 5)


def _band(interval: Interval | None, times: float) -> str:
    if interval is None:
        return "–"
    places = digits(interval) if times == 1 else 2
    return f"{times * interval.low:.{places}f} … {times * interval.high:.{places}f}"


def as_dict(versus: Versus) -> dict[str, Any]:
    """Everything a program could want; only JSON types."""
    return {
        "a": versus.a,
        "b": versus.b,
        "headline": headline(versus),
        "exit_code": versus.exit_code,
        "tolerance": versus.tolerance,
        "tested": versus.tested,
        "metrics": list(versus.metrics),
        "pairs": [
            {
                "model": pair.model,
                "a": pair.a,
                "b": pair.b,
                "points": [_point(point) for point in pair.points],
                "differing": [
                    {"field": one.field, "a": one.a, "b": one.b, "matters": one.matters} for one in pair.differing
                ],
                "only_a": list(pair.only_a),
                "only_b": list(pair.only_b),
            }
            for pair in versus.pairs
        ],
    }


def _point(point: VersusPoint) -> dict[str, Any]:
    return {
        "load": {"kind": point.load[0], "value": point.load[1], "label": point.label},
        "not_compared": point.barred,
        "doubts": list(point.doubts),
        "effects": [_effect(one) for one in point.effects],
    }


def _effect(one: Effect) -> dict[str, Any]:
    def ends(interval: Interval | None) -> list[float] | None:
        return None if interval is None else [interval.low, interval.high, interval.level]

    found: dict[str, Any] = clean(
        {
            "metric": one.metric,
            "a": one.a,
            "b": one.b,
            "ratio": one.ratio,
            "ratio_interval": ends(one.interval),
            "difference": one.difference,
            "difference_interval": ends(one.difference_interval),
            "outcome": one.outcome,
            "regression": one.regression,
            "smallest_detectable": one.detectable,
            "p": one.p,
            "rounds": list(one.rounds),
            "method": one.method,
            "note": one.note,
        }
    )
    return found
