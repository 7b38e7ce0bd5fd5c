"""An explanation as files in a folder: a page, a text, and the chart where charts can be drawn."""

from __future__ import annotations

from pathlib import Path

from redline.errors import EnvironmentFault
from redline.report.charts import Chart, available, write_whole
from redline.report.explain.read import Explained
from redline.report.explain.text import html, markdown


def write_explained(explained: Explained, folder: Path) -> list[Path]:
    """`explain.html`, `explain.md` and one `explain-N.svg` and `.png` for each load point; what was written."""
    drawn = _drawn(explained) if available() else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, content in drawn.items():
            write_whole(folder / name, content)
        svgs = tuple(content.decode() for name, content in drawn.items() if name.endswith(".svg"))
        pictures = tuple(name for name in drawn if name.endswith(".svg"))
        for name, text in (("explain.html", html(explained, svgs)), ("explain.md", markdown(explained, pictures))):
            write_whole(folder / name, text.encode())
            written.append(folder / name)
    except OSError as error:
        raise EnvironmentFault(f"cannot write to {folder}", why=str(error), fix="--output FOLDER") from error
    return written + [folder / name for name in drawn]


def _drawn(explained: Explained) -> dict[str, bytes]:
    from redline.report.explain.draw import drawing

    found: dict[str, bytes] = {}
    for point in explained.points:
        one = drawing(point)
        chart = Chart(one.kind, point.trial.model, one.kind, one.title, one.alt, one.spec())
        found |= {f"{chart.name}.svg": chart.svg.encode(), f"{chart.name}.png": chart.png}
    return found
