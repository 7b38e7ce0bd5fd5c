"""`redline node ceilings`: bytes and FLOPs per second that this card, or this CPU, reaches."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("ceilings")(command)


def command(
    python: Annotated[str, typer.Option(help="interpreter or virtual environment with torch; ours when empty")] = "",
    device: Annotated[str, typer.Option(help="cuda:0 or cpu; the GPU when there is one")] = "",
    seconds: Annotated[float, typer.Option(help="for each number, about")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="the numbers as JSON")] = False,
) -> None:
    """Measure what this card reaches: reading, copying, matrix products of each type. Kept for every later report."""
    from redline.cli.show import print_json, stderr
    from redline.report.roofline import ceilings_lines
    from redline.tune.ceilings import node_ceilings

    console = stderr()

    def say(text: str) -> None:
        console.print(text, markup=False)

    found, path = node_ceilings(python=python, device=device, seconds=seconds, progress=say)
    if as_json:
        print_json(found.as_dict())
        return
    for line in ceilings_lines(found):
        typer.echo(line)
    console.print(f"kept in {path}", markup=False)
