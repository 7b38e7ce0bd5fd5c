"""`redline doctor`: what this box can do, what is missing, and how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "missing": "[yellow]missing[/]", "fail": "[red]fail[/]"}


def command(
    python: Annotated[
        list[str] | None, typer.Option(help="another interpreter or virtual environment to look into; repeatable")
    ] = None,
    db: Annotated[Path | None, typer.Option(help="results file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, with every fact of the box")] = False,
) -> None:
    from redline.node.doctor import doctor

    checks = doctor(python or [], db=db)
    if as_json:
        from redline.cli.show import print_json
        from redline.node.facts import facts

        print_json({"checks": [check.__dict__ for check in checks], "facts": facts()})
    else:
        _print(checks)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(3)


def _print(checks: list) -> None:  # type: ignore[type-arg]
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("", "what", "found", "what it means", box=None, padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row(
            MARKS.get(check.state, check.state), escape(check.name), escape(check.found), escape(check.meaning)
        )
    console.print(table)
    todo = [check for check in checks if check.how and check.state != "ok"]
    if todo:
        console.print("\n[bold]how to get what is missing[/]")
        for check in todo:
            console.print(f"  {escape(check.name)}: {escape(check.how)}")
