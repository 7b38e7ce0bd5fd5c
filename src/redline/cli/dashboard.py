"""`redline dashboard`: the dashboards without Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redline.cli.options import Json


def application() -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_group)
    app.command("list")(list_)
    app.command("shot")(shot)
    return app


def _group() -> None:
    """Grafana's dashboards of redline, listed and drawn without Grafana."""


def list_(as_json: Json = False) -> None:
    """Name, uid and version of every dashboard, and its panels."""
    from redline.cli.show import print_json
    from redline.report.dashboards.boards import BOARDS

    if as_json:
        print_json(
            {
                name: {"uid": board.uid, "version": board.version, "panels": [panel.title for panel in board.panels]}
                for name, board in BOARDS.items()
            }
        )
        return
    for name, board in BOARDS.items():
        typer.echo(f"{name:8} version {board.version}, {len(list(board.panels))} panels: {board.text}")


def shot(
    name: Annotated[str, typer.Argument(metavar="DASHBOARD", help="engine, gpu, host or client")],
    prometheus: Annotated[str, typer.Option(help="address of Prometheus")] = "http://127.0.0.1:9090",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="FILE.png, .svg or .json (Vega-Lite)")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="how far back; 30 if not given, or from its first scrape on if that is later")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a dashboard's panels from a Prometheus into a picture: redline's own rendering, labelled as that."""
    from redline.cli.show import print_json, stderr, working
    from redline.cluster import shot as shots

    with working("asking Prometheus"):
        done = shots.shot(name, prometheus, output, minutes=minutes)
    if as_json:
        print_json({"file": str(done.file), "panels": done.panels, "without_data": list(done.empty)})
        return
    typer.echo(done.file)
    if done.empty:
        stderr().print(f"no data in {len(done.empty)} of {done.panels} panels: {', '.join(done.empty)}", markup=False)
