"""Every chart of a report, as Altair specifications, and their rendering without a browser or a network.

The number of marks is bounded: a few load points get a distribution and a timeline of their own, each of them cut down
in `analyse.curves`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
    spec: dict[str, Any]


def charts(report: Report) -> list[Chart]:
    """All charts, model by model. EnvironmentFault when the extra is missing."""
    require()
    from redline.report import draw_curves, draw_load, draw_start

    made = []
    for model in report.models:
        prefix = f"{_file_name(model.name)}-" if len(report.models) > 1 else ""
        for draw in (draw_load, draw_curves, draw_start):
            for one in draw.drawings(model, report):
                made.append(Chart(prefix + one.kind, model.name, one.kind, one.title, one.alt, one.spec()))
    return made


def write_charts(report: Report, folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Writes every chart into `folder`, in every format; the files written."""
    written = []
    for chart in charts(report):
        for form in formats:
            path = folder / f"{chart.name}.{form}"
            folder.mkdir(parents=True, exist_ok=True)
            if form == "svg":
                path.write_text(svg(chart), encoding="utf-8")
            else:
                path.write_bytes(png(chart))
            written.append(path)
    return written


def svg(chart: Chart) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.spec, vl_version=_vega_lite()))


def png(chart: Chart) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(chart.spec, vl_version=_vega_lite(), scale=PNG_SCALE))


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


def _vega_lite() -> str:
    """`6.4` of the installed Altair's `v6.4.1`, which the renderer must speak."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "model"
