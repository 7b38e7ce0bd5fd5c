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
    as_tool: Annotated[
        str,
        typer.Option("--as", metavar="TOOL", help="the numbers of vllm, guidellm, aiperf, sglang or inference-perf"),
    ] = "",
) -> None:
    if as_tool:
        show_as(as_tool, runs or ["last"], db=db, as_json=as_json)
        return
    render(runs or ["last"], db=db, output=output, as_json=as_json, formats=parse_formats(formats))


def parse_formats(text: str) -> tuple[str, ...]:
    from redline.errors import UsageError

    wanted = tuple(word.strip() for word in text.split(",") if word.strip() and word.strip() != "none")
    for word in wanted:
        if word not in FORMATS:
            raise UsageError(f"there is no report format {word!r}", fix=f"one or more of {', '.join(FORMATS)}, or none")
    return wanted


def show_as(tool: str, runs: Sequence[str], *, db: Path | None, as_json: bool) -> None:
    """Another tool's own table, by its own definitions, from what redline recorded; no files are written."""
    from redline.report.peers import as_dict, peer_points, print_points
    from redline.store.read import Reader, default_path

    with working("computing"), Reader.open(db or default_path()) as reader:
        points = peer_points(reader, runs, tool)
    if as_json:
        print_json(as_dict(points))
    else:
        from rich.console import Console

        print_points(points, Console(highlight=False))


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
