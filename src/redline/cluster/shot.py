"""`redline dashboard shot`: a dashboard's panels, asked of a Prometheus and drawn by redline."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from redline.engines.http import fetch
from redline.errors import EnvironmentFault, UsageError
from redline.report.charts import vega_lite
from redline.report.dashboards.board import Board, Panel
from redline.report.dashboards.boards import board
from redline.report.dashboards.picture import Found, Line, draw

MINUTES = 30.0
POINTS = 240
"""Of a line: about one for two pixels."""
FORMATS = ("png", "svg", "json")


@dataclass(frozen=True)
class Shot:
    """`empty` names the panels that Prometheus had no data for."""

    file: Path
    board: Board
    panels: int
    empty: tuple[str, ...]


@dataclass(frozen=True)
class Server:
    """A Prometheus that answers queries."""

    url: str
    timeout_s: float = 20.0

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of the answer; EnvironmentFault when there is none, UsageError when the query is wrong."""
        target = f"{self.url.rstrip('/')}/api/v1/{path}"
        try:
            reply = fetch(target, raw=urlencode(parameters).encode(), headers=_FORM, timeout_s=self.timeout_s)
        except OSError as error:
            how = "start one with the files of `redline export monitoring`, or name it with --prometheus"
            raise EnvironmentFault(f"no Prometheus answers at {self.url}", why=str(error), fix=how) from error
        answer = reply.json()
        if not isinstance(answer, dict) or answer.get("status") != "success":
            if reply.status in (400, 422):
                raise UsageError(f"Prometheus refuses the query {parameters.get('query', '')}", why=reply.error)
            raise EnvironmentFault(f"{self.url} is no Prometheus: HTTP {reply.status}", why=reply.error[:200])
        return answer["data"]

    def begins(self, span: tuple[float, float]) -> float:
        """When the first target was scraped in `span`, to about a hundredth of it; its beginning where none was."""
        step = f"{max((span[1] - span[0]) / 100, 1.0):.3f}"
        data = self.ask("query_range", query="up", start=f"{span[0]:.3f}", end=f"{span[1]:.3f}", step=step)
        return min((float(series["values"][0][0]) for series in data["result"]), default=span[0])

    def lines(self, panel: Panel, board_: Board, span: tuple[float, float]) -> list[Line]:
        step = max((span[1] - span[0]) / POINTS, 1.0)
        grid = [span[0] + step * place for place in range(int((span[1] - span[0]) / step) + 1)]
        found: list[Line] = []
        for query in panel.queries:
            times = {"start": f"{span[0]:.3f}", "end": f"{span[1]:.3f}", "step": f"{step:.3f}"}
            data = self.ask("query_range", query=board_.anything(query.expr), **times)
            for series in data["result"]:
                given = {round((float(at) - span[0]) / step): _number(value) for at, value in series["values"]}
                values = tuple(given.get(place, math.nan) for place in range(len(grid)))
                found.append(Line(query.name(series["metric"]) or query.expr, tuple(grid), values))
        return found


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else math.nan


def shot(
    name: str, prometheus: str = "http://127.0.0.1:9090", output: Path | None = None, *,
    minutes: float | None = None, end: float | None = None,
) -> Shot:  # fmt: skip
    """Draws the dashboard into `output` (PNG, SVG, or the Vega-Lite as JSON, by its ending; NAME.png when None).

    `end` in Unix seconds, now when None. `minutes` None: 30, or as many as the server has. EnvironmentFault without the
    charts extra or without an answer.
    """
    found, path = board(name), output or Path(f"redline-{name}.png")
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise UsageError(f"{path}: a picture is .png, .svg or .json", fix=f"-o {path.stem or name}.png")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"{minutes:g} minutes are nothing to look at", fix="--minutes 30")
    if urlsplit(prometheus).scheme not in ("http", "https"):
        raise UsageError(f"{prometheus!r} is no address", fix="--prometheus http://127.0.0.1:9090")
    last = time.time() if end is None else end
    server, panels = Server(prometheus), list(found.panels)
    span = (last - (minutes or MINUTES) * 60, last)
    if minutes is None:
        span = (server.begins(span), last)
    with ThreadPoolExecutor(4) as several:
        lines: Sequence[list[Line]] = list(several.map(lambda panel: server.lines(panel, found, span), panels))
    data: Found = dict(zip(panels, lines, strict=True))
    _write(draw(found, data, span, prometheus), path, form)
    empty = tuple(panel.title for panel in panels if not data[panel])
    return Shot(path, found, len(panels), empty)


def _write(spec: dict[str, Any], path: Path, form: str) -> None:
    import orjson
    import vl_convert

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "json":
            path.write_bytes(orjson.dumps(spec))
        elif form == "svg":
            path.write_text(vl_convert.vegalite_to_svg(spec, vl_version=vega_lite()))
        else:
            path.write_bytes(vl_convert.vegalite_to_png(spec, vl_version=vega_lite(), scale=1.5))
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}", fix="-o elsewhere") from error
