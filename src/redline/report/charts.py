"""Every chart of a report, as Altair specifications, and their rendering without a browser or a network.

The number of marks is bounded: a few load points get a distribution and a timeline of their own, each of them cut down
in `analyse.curves`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from redline.errors import EnvironmentFault
from redline.report.model import Report

FORMATS = ("svg", "png")
PNG_SCALE = 2.0


@dataclass(frozen=True)
class Chart:
    """`name` is its file name without the ending, `alt` what it shows in one sentence, `spec` Vega-Lite."""

    name: str
    model: str
    kind: str
    title: str
    alt: str
    spec: dict[str, Any] = field(repr=False)

    @cached_property
    def svg(self) -> str:
        import vl_convert

        return str(vl_convert.vegalite_to_svg(self.spec, vl_version=vega_lite()))

    @cached_property
    def png(self) -> bytes:
        import vl_convert

        return bytes(vl_convert.vegalite_to_png(self.spec, vl_version=vega_lite(), scale=PNG_SCALE))


def charts(report: Report, svg: bool = False) -> list[Chart]:
    """All charts, model by model; with `svg` each is drawn while the next ones are described. EnvironmentFault when the
    extra is missing."""
    with ThreadPoolExecutor(1, "redline-charts") as renderer:
        if svg:
            renderer.submit(_start)
        require()
        from redline.report.canvas import unchecked

        made, drawn = [], []
        with unchecked():
            for chart in _described(report):
                made.append(chart)
                drawn += [renderer.submit(getattr, chart, "svg")] if svg else []
    for one in drawn:
        one.result()
    return made


def _start() -> None:
    """The renderer takes a second to start: as long as Altair takes to be imported and to describe the first charts."""
    import vl_convert

    vl_convert.vegalite_to_svg({"data": {"values": []}, "mark": "point"})


def _described(report: Report) -> Iterator[Chart]:
    from redline.report import draw_curves, draw_load, draw_roofline, draw_start, draw_telemetry

    for model in report.models:
        prefix = f"{_file_name(model.name)}-" if len(report.models) > 1 else ""
        for draw in (draw_load, draw_curves, draw_roofline, draw_start, draw_telemetry):
            for one in draw.drawings(model, report):
                yield Chart(prefix + one.kind, model.name, one.kind, one.title, one.alt, one.spec())


def write_charts(
    report: Report, folder: Path, formats: Sequence[str] = FORMATS, drawn: Sequence[Chart] | None = None
) -> list[Path]:
    """Writes every chart into `folder`, in every format; the files written. `drawn` saves drawing them again."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts(report) if drawn is None else drawn:
        for form in formats:
            path = folder / f"{chart.name}.{form}"
            write_whole(path, chart.png if form == "png" else chart.svg.encode())
            written.append(path)
    return written


def write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing: whoever looks meanwhile, and whoever is left after a full disk, has the file before."""
    draft = path.with_name(f"{path.name}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def available() -> bool:
    """True when charts can be drawn here."""
    try:
        require()
    except EnvironmentFault:
        return False
    return True


def require() -> None:
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault(
            "charts cannot be drawn", why=f"{error.name} is not installed", fix="pip install 'redline[charts]'"
        ) from error


def vega_lite() -> str:
    """`6.4` of the installed Altair's `v6.4.1`, which the renderer must speak."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "model"
