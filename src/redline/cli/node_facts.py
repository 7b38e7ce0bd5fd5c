"""`redline node facts`: the box on one screen, as JSON, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.node_options import Copy

if TYPE_CHECKING:
    from redline.report.box import Part


def register(app: typer.Typer) -> None:
    app.command("facts")(command)


def command(
    root: Copy = None,
    svg: Annotated[Path | None, typer.Option(help="write the topology as a picture")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="every fact, as JSON")] = False,
) -> None:
    """The box on one screen: nodes, GPUs, links, network, disks, software, and what it does not tell."""
    from redline.cli.show import print_json, stderr
    from redline.node.box import node_facts
    from redline.node.snapshot import replayed

    with replayed(root) as sys:
        facts = node_facts(sys)
    if svg is not None:
        _write(svg, facts)
    if as_json:
        print_json(facts)
    else:
        from redline.report.box import box_parts

        _print(box_parts(facts))
    if svg is not None:
        stderr().print(f"wrote {svg}", markup=False)


def _write(path: Path, facts: dict[str, object]) -> None:
    from redline.errors import EnvironmentFault
    from redline.report.topology import topology_svg

    try:
        path.write_text(topology_svg(facts))
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be written: {error.strerror}", fix="--svg elsewhere") from error


def _print(parts: list[Part]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    for part in parts:
        if part.title:
            console.print(f"\n[bold]{escape(part.title)}[/]")
        table = Table(*part.columns, box=None, padding=(0, 2, 0, 0), show_header=bool(part.columns), header_style="dim")
        for name, text in part.lines:
            table.add_row(f"[dim]{escape(name)}[/]", escape(text))
        for place, row in enumerate(part.rows):
            cells = [
                f"[red]{escape(cell)}[/]" if (place, at) in part.bad else escape(cell) for at, cell in enumerate(row)
            ]
            table.add_row(*cells)
        console.print(table)
