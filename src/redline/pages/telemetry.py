"""What the box, the engine and the client did meanwhile: a chart per name, all on the clock of the requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from redline.errors import UsageError
from redline.pages.desk import Desk, json_answer
from redline.pages.figures import thin
from redline.store.browse import Browser
from redline.store.rows import Series
from redline.units import NS_PER_S

GROUPS = (
    ("gpu", "GPU", ("gpu.*", "dcgm.*", "engine.gpu_memory_bytes")),
    ("engine", "Engine", ("engine.*",)),
    ("client", "Client", ("client.*", "sampler.*")),
    ("host", "Host", ("host.*",)),
    ("cause", "What may hold up an engine", ("cause.*",)),
    ("server", "The server's own metrics", ("server.*",)),
)
COUNTERS = ("_total", "_sum", "_count", ".cpu_s", ".energy_j", "_bucket", "_created")
"""Endings of names that only ever grow: drawn as what they grow by per second."""
MOST_LINES = 24
MOST_POINTS = 600


def read(reader: Browser, run_id: str, names: Sequence[str] = (), from_ns: int = 0, to_ns: int = 2**62) -> list[Series]:
    """Series of a run in a stretch of time; `names` may hold patterns."""
    return reader.run_samples(run_id, names, from_ns, to_ns)


def _asked(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass
class _Panel:
    """All series of one name, those of several starts of an engine joined."""

    unit: str
    lines: dict[str, list[Series]] = field(default_factory=dict)


def telemetry_page(desk: Desk, request: Request) -> Response:
    with desk.open() as reader:
        run = reader.run(request.path_params["run"])
        names = {name for trial in run.trials for name in reader.sample_names(trial.id)}
    taken: set[str] = set()
    shown = []
    for key, title, patterns in GROUPS:
        mine = sorted(name for name in names - taken if _asked(name, patterns))
        taken |= set(mine)
        shown += [(key, title, len(mine))] if mine else []
    notes = [(trial, trial.telemetry or {}) for trial in run.trials]
    return desk.page(
        request, "telemetry", run=run, groups=shown, other=sorted(names - taken), notes=telemetry_notes(notes),
        box=run.status == "running",
    )  # fmt: skip


def telemetry_notes(found: Sequence[tuple[Any, dict[str, Any]]]) -> list[tuple[str, str]]:
    """What the samplers said of themselves: what was skipped, and what they cost."""
    from redline.report.evidence import box_rows

    rows = [(trial.engine, name, text) for trial, said in found for name, text in box_rows(said)]
    return list(dict.fromkeys((f"{engine} · {name}", text) for engine, name, text in rows))[:60]


def telemetry_data(desk: Desk, request: Request) -> Response:
    """The charts of one group."""
    key = request.query_params.get("group", "")
    patterns = next((patterns for name, _, patterns in GROUPS if name == key), None)
    if patterns is None:
        raise UsageError(f"there is no group {key!r}", fix=", ".join(name for name, *_ in GROUPS))
    with desk.open() as reader:
        run = reader.run(request.path_params["run"])
        found = read(reader, run.id, patterns)
    if key == "engine":  # it stands among the GPU's
        found = [one for one in found if one.name != "engine.gpu_memory_bytes"]
    bands: list[dict[str, Any]] = [
        {
            "from": (point.measured_from_ns - run.started_ns) / NS_PER_S,
            "to": (point.ended_ns - run.started_ns) / NS_PER_S, "name": f"{trial.engine}: {point.label}",
        }
        for trial in run.trials for point in trial.points
    ]  # fmt: skip
    end = max(
        [point["to"] for point in bands] + [float(one.t_ns[-1] - run.started_ns) / NS_PER_S for one in found] + [1]
    )
    return json_answer({"figures": panels(found, run.started_ns, bands, end)})


def panels(found: Sequence[Series], start_ns: int, bands: list[dict[str, Any]], end: float) -> list[dict[str, Any]]:
    """A chart for each name; series that never change say so instead of being drawn."""
    by_name: dict[str, _Panel] = {}
    for one in found:
        if not one.name.endswith(("_bucket", "_created")):
            label = " ".join(f"{value}" for name, value in sorted(one.labels.items()) if name != "model_name")
            by_name.setdefault(one.name, _Panel(one.unit)).lines.setdefault(label, []).append(one)
    return [_figure(name, panel, start_ns, bands, end) for name, panel in sorted(by_name.items())]


def _figure(name: str, panel: _Panel, start_ns: int, bands: list[dict[str, Any]], end: float) -> dict[str, Any]:
    counter = name.endswith(COUNTERS) and any(len(part.value) > 1 for parts in panel.lines.values() for part in parts)
    series: list[dict[str, Any]] = []
    for label, parts in list(panel.lines.items())[:MOST_LINES]:
        drawn = [_line(part, start_ns, counter, len(parts)) for part in parts]
        x: list[float] = []
        y: list[float | None] = []
        for seconds, values in drawn:
            if x:  # another start of an engine: no line between the two
                x.append(x[-1])
                y.append(None)
            x += seconds
            y += values
        series.append({"name": label or name.rpartition(".")[2], "colour": len(series) % 8, "x": x, "y": y})
    scale, unit = _scale(panel.unit, counter, series)
    if scale != 1:
        for one in series:
            one["y"] = [None if value is None else value * scale for value in one["y"]]
    more = len(panel.lines) - len(series)
    return {
        "title": name.partition(".")[2] if name.startswith("server.") else name, "unit": unit, "zero": True,
        "x": {"title": "s"}, "from": 0, "to": end, "bands": bands, "group": "telemetry",
        "series": series, "note": ("per second" if counter else "") + (f" · {more} more are stored" if more else ""),
        "flat": _flat(series), "height": 170,
    }  # fmt: skip


def _line(one: Series, start_ns: int, counter: bool, parts: int) -> tuple[list[float], list[float | None]]:
    seconds, values = (one.t_ns - start_ns) / NS_PER_S, one.value
    if counter:
        steps = np.diff(seconds)
        grown = np.diff(values)
        values = np.where(grown >= 0, grown, np.nan) / np.where(steps > 0, steps, np.nan)  # a fall is a reset
        seconds = seconds[1:]
    seconds, values = thin(seconds, values, max(MOST_POINTS // parts, 60))
    return np.round(seconds, 3).tolist(), [None if np.isnan(value) else float(value) for value in values]


def _scale(unit: str, counter: bool, series: Sequence[dict[str, Any]]) -> tuple[float, str]:
    """Bytes as MB or GB, shares as percent."""
    each = "/s" if counter else ""
    if unit == "share":
        return 100, "%" + each
    if unit in ("B", "B/s"):
        top = max((value or 0 for one in series for value in one["y"]), default=0)
        scale, name = (1e-9, "GB") if top >= 2e9 else (1e-6, "MB") if top >= 2e5 else (1, "B")
        return scale, name + ("/s" if unit == "B/s" else each)
    return 1, unit + each


def _flat(series: Sequence[dict[str, Any]]) -> float | None:
    """The value that never changed, when there is one."""
    values = {value for one in series for value in one["y"] if value is not None}
    return values.pop() if len(values) == 1 else None
