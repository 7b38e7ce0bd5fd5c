"""`redline report`: stored runs, shown again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.show import print_json, stderr, working

if TYPE_CHECKING:
    from redline.report.model import Report

Runs = Annotated[list[str] | None, typer.Argument(metavar="RUN…", help="ids, beginnings of ids, or `last`")]
FORMATS = ("html", "md", "svg", "png", "json")


def command(
    runs: Runs = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder for the files [beside the results file]")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar=",".join(FORMATS), help="files to write, or `none`")
    ] = "html,md,svg,png",
    db: Annotated[Path | None, typer.Option(help="results file; ./redline-results/redline.db when not given")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the report as JSON on stdout")] = False,
) -> None:
    render(runs or ["last"], db=db, output=output, as_json=as_json, formats=parse_formats(formats))


def parse_formats(text: str) -> tuple[str, ...]:
    from redline.errors import UsageError

    wanted = tuple(word.strip() for word in text.split(",") if word.strip() and word.strip() != "none")
    for word in wanted:
        if word not in FORMATS:
            raise UsageError(f"there is no report format {word!r}", fix=f"one or more of {', '.join(FORMATS)}, or none")
    return wanted


def render(
    runs: Sequence[str],
    *,
    db: Path | None,
    output: Path | None = None,
    as_json: bool = False,
    formats: Sequence[str] = ("html", "md"),
    quiet: bool = False,
) -> Report:
    """Prints the table (or JSON, or nothing when `quiet`) and writes the files; the last line on stderr says where."""
    from redline.report.assemble import load_report
    from redline.report.files import write_files
    from redline.report.plain import as_dict
    from redline.store.read import Reader, default_path

    path = db or default_path()
    with working("computing"), Reader.open(path) as reader:
        report = load_report(reader, runs)
    if as_json:
        print_json(as_dict(report))
    elif not quiet:
        from rich.console import Console

        from redline.report.table import print_report

        print_report(report, Console(highlight=False))
    folder = output or path.parent / "reports" / "+".join(run.id for run in report.runs)
    with working("writing the report"):
        written = write_files(report, folder, formats)
    if written:
        stderr().print(f"report: {written[0]}", soft_wrap=True)
    return report
