"""`redline explain`: why some requests of a stored run were slow, and who was at it when they stalled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from redline.report.explain.read import Explained


def command(
    run: Annotated[str, typer.Argument(help="id or a part of it, `last`, `last~1`")] = "last",
    point: Annotated[
        str, typer.Option(help="one load point: its label, or its clients or requests per second; all if not given")
    ] = "",
    engine: Annotated[str, typer.Option(help="one engine of the run; all if not given")] = "",
    request: Annotated[
        int | None, typer.Option(min=0, metavar="ID", help="the timeline of one request, by its index")
    ] = None,
    db: Annotated[Path | None, typer.Option(help="results file; ./redline-results/redline.db when not given")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="folder for explain.html, explain.md and the chart")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")] = False,
) -> None:
    from rich.console import Console

    from redline.cli.show import print_json, working
    from redline.report.explain.read import explain
    from redline.report.explain.text import as_dict, print_explained

    if request is not None:
        _request(run, request, point, engine, db, as_json)
        return
    with working("explaining"):
        found = explain(run, point=point, engine=engine, db=db)
    if as_json:
        print_json(as_dict(found))
    else:
        print_explained(found, Console(highlight=False))
    if output is not None:
        _write(found, output)


def _request(run: str, request: int, point: str, engine: str, db: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from redline.cli.show import print_json
    from redline.report.explain.request import explain_request, request_dict, request_sections
    from redline.report.table import section_parts

    timeline = explain_request(run, request, point=point, engine=engine, db=db)
    if as_json:
        print_json(request_dict(timeline))
        return
    console = Console(highlight=False)
    for section in request_sections(timeline):
        for part in section_parts(section):
            console.print(part)


def _write(found: Explained, folder: Path) -> None:
    from redline.cli.show import stderr
    from redline.report.explain.files import write_explained

    for path in write_explained(found, folder):
        stderr().print(f"explanation: {path}", soft_wrap=True, markup=False)
