"""`redline runs`: what the results file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    limit: Annotated[int, typer.Option(min=1, help="newest so many")] = 20,
    db: Annotated[Path | None, typer.Option(help="results file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    from redline.store.read import Reader, default_path

    with Reader.open(db or default_path()) as reader:
        rows = reader.runs(limit)
    if as_json:
        from redline.cli.show import print_json

        print_json([row.as_dict() for row in rows])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from redline.cli.show import MARKS

    table = Table(box=None, header_style="bold")
    for heading in ("run", "status", "verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("models", "engines", "points", "name"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row.id,  # begins with the date and the time in UTC
            row.status,
            MARKS.get(row.verdict, row.verdict),
            Text(", ".join(row.models)),
            Text(", ".join(row.engines)),
            str(row.points),
            Text(row.name),
        )
    Console(highlight=False).print(table)
