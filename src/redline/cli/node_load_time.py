"""`redline node load-time`: how long a model takes to load, by every way that this box has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from redline.node.load_time import Timed, Way


def register(app: typer.Typer) -> None:
    app.command("load-time")(command)


def command(
    model: Annotated[Path, typer.Argument(help="folder of the model")],
    other: Annotated[
        list[Path] | None, typer.Option("--from", help="the same model at another path (a network mount); repeatable")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", "-e", help="also into this engine, by its strategies; repeatable")
    ] = None,
    python: Annotated[str | None, typer.Option(help="interpreter or virtual environment that has the engines")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="of every way, interleaved")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="parallel readers")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="every measurement as JSON")] = False,
) -> None:
    """Compare disk, page cache, other paths and engines. Drops this model's files from the page cache, no others."""
    from redline.cli.show import print_json, stderr
    from redline.node.live import LiveSys
    from redline.node.load_time import file_ways, load_time

    console = stderr()
    ways = file_ways(LiveSys(), model, other or [], workers=workers)
    if engine:
        ways += _into_engines(model, engine, python)
    found = load_time(ways, repeats=repeats, said=lambda line: console.print(line, markup=False))
    if as_json:
        print_json({"model": str(model), "ways": [timed.as_dict() for timed in found]})
    else:
        _print(found)


def _into_engines(folder: Path, engines: list[str], python: str | None) -> list[Way]:
    from redline.spec.overrides import experiment_from
    from redline.tune.engine_load import engine_ways

    values = {"model": [str(folder)], "engines": engines, "python": python}
    experiment = experiment_from(None, values)
    return engine_ways(experiment.models[0], folder, experiment.engines)


def _print(found: list[Timed]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("way", "median s", "from", "to", "GB/s", "× of the fastest", "how", box=None, padding=(0, 2, 0, 0))
    fastest = min((timed.median for timed in found if timed.median), default=0.0)
    for timed in found:
        if timed.median is None or timed.spread is None:
            table.add_row(escape(timed.name), "skipped", "", "", "", "", escape(str(timed.skipped)))
            continue
        low, high = timed.spread
        rate = f"{timed.gb_per_s:.2f}" if timed.gb_per_s else ""
        times = f"{timed.median / fastest:.1f}" if fastest else ""
        row = (timed.name, f"{timed.median:.3f}", f"{low:.3f}", f"{high:.3f}", rate, times, timed.how)
        table.add_row(*map(escape, row))
    Console(highlight=False).print(table)
