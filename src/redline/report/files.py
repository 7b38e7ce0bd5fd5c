"""The files of a report, in one folder: the page, the Markdown, the charts, the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from redline.report.charts import available, write_charts
from redline.report.html import write_html
from redline.report.markdown import render_markdown
from redline.report.model import Report
from redline.report.plain import as_dict

FORMATS = ("html", "md", "svg", "png", "json")


def write_files(report: Report, folder: Path, formats: Sequence[str] = ("html", "md")) -> list[Path]:
    """Writes `report.html`, `report.md`, `report.json` and `charts/`; what was written, the page first.

    Without the charts extra the page and the Markdown have tables only, and no chart files are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    if "html" in formats:
        written.append(write_html(report, folder / "report.html"))
    pictures = [form for form in ("svg", "png") if form in formats]
    drawn = write_charts(report, folder / "charts", pictures) if pictures and available() else []
    if "md" in formats:
        shown = [path.relative_to(folder) for path in drawn if path.suffix == f".{pictures[0]}"]
        written.append(folder / "report.md")
        written[-1].write_text(render_markdown(report, shown), encoding="utf-8")
    if "json" in formats:
        written.append(folder / "report.json")
        written[-1].write_bytes(orjson.dumps(as_dict(report), option=orjson.OPT_INDENT_2))
    return written + drawn
