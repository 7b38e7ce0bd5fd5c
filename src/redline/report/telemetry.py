"""What the samplers saw at each load point, what is missing and why, and what sampling itself cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from redline.analyse.telemetry import Span, over_all, sliced, span
from redline.report.model import ModelReport, load_label
from redline.report.numbers import NONE, data_size, number
from redline.report.section import Section
from redline.sampled import SAMPLED
from redline.store.read import Reader
from redline.store.rows import RunRow, Series, TrialRow

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 32
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("GPU", "gpu.utilisation_share", "mean"),
    ("SMs active", "gpu.sm_active_share", "mean"),
    ("tensor", "gpu.tensor_active_share", "mean"),
    ("DRAM", "gpu.dram_active_share", "mean"),
    ("power", "gpu.power_w", "mean"),
    ("GPU memory", "gpu.memory_used_bytes", "high"),
    ("host CPU", "host.cpu_busy_share", "mean"),
    ("engine CPU", "engine.cpu_cores", "mean"),
    ("run queue", "engine.run_queue_ms_per_s", "mean"),
    ("running", "engine.requests_running", "mean"),
    ("waiting", "engine.requests_waiting", "mean"),
    ("KV cache", "engine.kv_usage_share", "high"),
)
"""Heading, name, and which number of it."""
LINES = (
    *("client.in_flight", "engine.requests_running", "engine.requests_waiting", "engine.kv_usage_share"),
    *("engine.generation_tokens_per_s", "engine.preemptions_per_s", "engine.prefix_hit_share"),
    *("gpu.utilisation_share", "gpu.sm_active_share", "gpu.sm_occupancy_share", "gpu.tensor_active_share"),
    *("gpu.dram_active_share", "gpu.power_w", "gpu.sm_clock_mhz", "gpu.temperature_c", "gpu.memory_used_bytes"),
    *("gpu.pcie_rx_bytes_per_s", "gpu.slowed"),
    *("host.cpu_busy_share", "engine.cpu_cores", "engine.run_queue_ms_per_s", "host.cpu_pressure_share"),
    *("host.memory_pressure_share", "host.io_pressure_share", "engine.rss_bytes", "engine.major_faults_per_s"),
    *("host.disk_read_bytes_per_s", "host.disk_written_bytes_per_s", "host.interrupts_per_s"),
)
"""What is drawn in text."""


def telemetry_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """One row per load point, or per start where there are none (`redline serve`); None when nothing was sampled."""
    stretches = list(_stretches(rows, models))
    found = [(label, load, _spans(reader, trial, start, end)) for label, load, trial, start, end in stretches]
    shown = [column for column in COLUMNS if any(column[1] in spans for _, _, spans in found)]
    notes = tuple(_notes(rows))
    if not shown and not notes:
        return None
    lines = [
        (label, load, *(_cell(name, spans.get(name), which) for _, name, which in shown))
        for label, load, spans in found
        if spans
    ]
    heads = ("engine", "load", *(heading for heading, _, _ in shown))
    return Section("telemetry", "What the box did meanwhile", heads, tuple(lines), notes)


def lines_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """Over time, in text, at the highest load of each engine; None when nothing was sampled there."""
    last = {label: (load, trial, start, end) for label, load, trial, start, end in _stretches(rows, models)}
    table: list[tuple[str, ...]] = []
    notes = [
        f"each bar is the mean over a {WIDTH}nd of the time, from the lowest to the highest value of its row; "
        "without a look, the last"
    ]
    for label, (load, trial, start, end) in last.items():
        still = []
        found = reader.run_samples(trial.run_id, LINES, start, end) if end > start else []
        mine = [one for one in found if one.trial_id == trial.id and len(one.value) > 1]
        for series in sorted(mine, key=lambda one: LINES.index(one.name)):
            line = _line(series, start, end)
            if line[2] == line[4]:
                still.append(f"{line[0]} {line[3]}")
            else:
                table.append((label, load, *line))
        if still:
            notes.append(f"{label} at {load}, never moved: {', '.join(still)}")
    if not table:
        return None
    heads = ("engine", "load", "measured", "over time", "lowest", "mean", "highest")
    return Section("telemetry-lines", "The same over time", heads, tuple(table), tuple(notes))


def _stretches(rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Iterator[tuple[str, str, TrialRow, int, int]]:
    """(engine, load, trial, from, to in ns)."""
    trials = {trial.id: trial for row in rows for trial in row.trials}
    ends = {point.id: point for trial in trials.values() for point in trial.points}
    for model in models:
        for engine in model.engines:
            label = engine.label if len(models) == 1 else f"{model.name} {engine.label}"
            for load, measured in engine.points.items():
                for one in measured:
                    point = ends[one.point_id]
                    yield label, load_label(load), trials[one.trial_id], point.measured_from_ns, point.ended_ns
    for row in rows:
        if row.served:
            for trial in row.trials:
                end = trial.ended_ns or 2**62
                yield trial.engine, "as it was used", trial, trial.ready_ns or trial.started_ns, end


def _spans(reader: Reader, trial: TrialRow, start: int, end: int) -> dict[str, Span]:
    names = [name for _, name, _ in COLUMNS]
    found: dict[str, list[Series]] = {}
    for series in reader.run_samples(trial.run_id, names, start, end):
        if series.trial_id == trial.id and "mig" not in series.labels:
            found.setdefault(series.name, []).append(series)
    spans = {name: over_all([(one.t_ns, one.value) for one in same], start, end) for name, same in found.items()}
    return {name: one for name, one in spans.items() if one.count}


def _cell(name: str, found: Span | None, which: str) -> str:
    if found is None:
        return NONE
    text = value_text(name, found.high if which == "high" else found.mean)
    return f"{text} at most" if which == "high" else text


def value_text(name: str, value: float, unit: str = "") -> str:
    """With its unit, as short as it can be."""
    unit = SAMPLED[name].unit if name in SAMPLED else unit
    if math.isnan(value):
        return NONE
    if unit == "share":
        return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"
    if unit in ("B", "B/s"):
        return data_size(value) + unit[1:]
    if not unit and value == int(value):
        return f"{value:,.0f}"
    if unit == "1/s":
        return f"{number(value)}/s"
    return f"{number(value)} {unit}".rstrip()


def _line(series: Series, start: int, end: int) -> tuple[str, ...]:
    whole = span(series.value)
    end = min(end, int(series.t_ns[-1]) + 1)
    drawn = sliced(series.name, series.t_ns, series.value, start, end, WIDTH)
    places = (drawn.seconds * 1e9 / max((end - start) / WIDTH, 1.0)).astype(np.int64)
    held = drawn.value[np.searchsorted(places, np.arange(WIDTH), side="right").clip(1) - 1]
    labels = ", ".join(f"{name} {value}" for name, value in series.labels.items())
    name = f"{series.name} ({labels})" if labels else series.name
    told = (value_text(series.name, value, series.unit) for value in (whole.low, whole.mean, whole.high))
    return (name, bars(list(held), whole.low, whole.high), *told)


def bars(values: Sequence[float], low: float, high: float) -> str:
    """One bar per value."""
    if not high > low:
        return BARS[0] * len(values)
    return "".join(BARS[min(int((value - low) / (high - low) * len(BARS)), len(BARS) - 1)] for value in values)


def _notes(rows: Sequence[RunRow]) -> Iterator[str]:
    told = [(trial, trial.telemetry) for row in rows for trial in row.trials if trial.telemetry]
    missing: dict[str, list[str]] = {}
    for trial, one in told:
        for name, skipped in (one.get("skipped") or {}).items():
            how = f" ({skipped['how_to_get_it']})" if skipped.get("how_to_get_it") else ""
            missing.setdefault(f"{name}: {skipped['reason']}{how}", []).append(trial.engine)
    engines = {trial.engine for trial, _ in told}
    for text, who in missing.items():
        yield f"not sampled, {text}" + ("" if set(who) == engines else f" · {', '.join(dict.fromkeys(who))}")
    yield from _costs([one for _, one in told])
    yield from dict.fromkeys(note for _, one in told for note in one.get("notes") or ())


def _costs(told: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Of the costliest start."""
    names = dict.fromkeys(name for one in told for name in one.get("samplers") or {})
    parts = []
    for name in names:
        costs = [one["samplers"][name] for one in told if name in (one.get("samplers") or {})]
        worst = max(costs, key=lambda cost: cost.get("cpu_share") or 0.0)
        ticks, late = sum(cost.get("ticks") or 0 for cost in costs), sum(cost.get("late_ticks") or 0 for cost in costs)
        every_s = worst.get("every_s") or 0.0
        pace = f"{1 / every_s:.1f}/s" if every_s else NONE
        parts.append(
            f"{name} {pace}, {worst.get('cpu_share') or 0.0:.2%} of a core, {number(worst.get('tick_ms') or 0.0)} ms a "
            f"look, {number(max(cost.get('longest_tick_ms') or 0.0 for cost in costs))} ms at worst, "
            f"{late} of {ticks} late"
        )
    if parts:
        yield "sampling cost: " + "; ".join(parts)
