"""`redline sql`: the results file is the interface."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    query: Annotated[str, typer.Argument(help="one SELECT; `.tables` and `.schema` work too")],
    db: Annotated[Path | None, typer.Option(help="results file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="rows as JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="rows as CSV")] = False,
) -> None:
    import csv
    import sys

    from redline.store.read import default_path
    from redline.store.read import query as ask

    columns, rows = ask(query, db or default_path())
    if as_json:
        from redline.cli.show import print_json

        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=None, header_style="bold")
        for row in rows:
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        Console(highlight=False).print(table)
