"""`redline import`: results of other tools, kept as runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from redline.cli.options import Db, Json


def command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="result files, or the folders they lie in")],
    db: Db = None,
    name: Annotated[str, typer.Option(help="a name for people")] = "",
    as_json: Json = False,
) -> None:
    from redline.cli.report import render
    from redline.cli.show import stderr
    from redline.tune.imports import import_files

    runs = import_files(files, db=db, argv=["redline", *sys.argv[1:]], name=name)
    for file, run in zip(files, runs, strict=True):
        stderr().print(f"imported {file} as run {run}", soft_wrap=True)
    render(runs, db=db, as_json=as_json, formats=())
