"""A report as files in a folder: one page, one text, the charts, the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from redline.errors import EnvironmentFault
from redline.report.charts import Chart, available, charts, require, write_charts, write_whole
from redline.report.html import render_html
from redline.report.markdown import render_markdown
from redline.report.model import Report
from redline.report.plain import as_dict


def write_files(report: Report, folder: Path, formats: Sequence[str] = ("html", "md")) -> list[Path]:
    """Writes `report.html`, `report.md`, `report.json` and `charts/*`; the files written, in the order asked for.

    Without the charts extra the page and the text do without; EnvironmentFault when only charts were asked for, and
    when the folder cannot be written.
    """
    pictured = [form for form in formats if form in ("svg", "png")]
    if len(pictured) == len(formats) and formats:
        require()
    svg = "html" in formats or "svg" in formats
    drawn = charts(report, svg) if (svg or pictured) and available() else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = write_charts(report, folder / "charts", pictured, drawn) if drawn and pictured else []
        written = []
        for form in formats:
            if form in pictured:
                written += [path for path in pictures if path.suffix == f".{form}"]
                continue
            path = folder / f"report.{form}"
            write_whole(path, _content(report, form, pictures, folder, drawn))
            written.append(path)
    except OSError as error:
        raise EnvironmentFault(f"cannot write the report to {folder}", why=str(error), fix="--output FOLDER") from error
    return written


def _content(report: Report, form: str, pictures: Sequence[Path], folder: Path, drawn: Sequence[Chart] | None) -> bytes:
    if form == "html":
        return render_html(report, drawn).encode()
    if form == "json":
        return orjson.dumps(as_dict(report), option=orjson.OPT_INDENT_2)
    # one file for each chart, the sharper kind where there are two
    kinds = {path.stem: path for path in sorted(pictures, key=lambda path: path.suffix == ".svg")}
    return render_markdown(report, [path.relative_to(folder) for path in kinds.values()]).encode()
