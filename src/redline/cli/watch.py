"""`redline watch`: GPU, host, engine and client side by side, live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from redline.tune.watch import Snapshot, Source


def command(
    run: Annotated[
        str, typer.Argument(help="id or a part of it, or `last`; the newest that goes on if not given")
    ] = "",
    url: Annotated[str, typer.Option(help="a server instead of a run: http://127.0.0.1:8000")] = "",
    box: Annotated[bool, typer.Option("--box", help="GPU and host alone")] = False,
    once: Annotated[bool, typer.Option("--once", help="one look, then end")] = False,
    every: Annotated[float, typer.Option(min=0.1, max=60, help="seconds between looks")] = 0.5,
    db: Annotated[Path | None, typer.Option(help="results file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON; without --once one line for each look")] = False,
) -> None:
    from rich.console import Console

    from redline.tune.watch import source

    console = Console(highlight=False)
    with source(run, url=url, box=box, db=db) as opened:
        try:
            if as_json:
                _json(opened, once, every)
            elif once or not console.is_terminal:
                _print(console, opened.look())
            else:
                _live(console, opened, every)
        except KeyboardInterrupt:
            return  # the way to leave a view is no failure


def _json(opened: Source, once: bool, every: float) -> None:
    import sys

    import orjson

    from redline.cli.show import print_json

    while True:
        seen = opened.look()
        if once:
            print_json(seen.as_dict())
            return
        sys.stdout.buffer.write(orjson.dumps(seen.as_dict()) + b"\n")
        sys.stdout.flush()
        if _over(seen):
            return
        time.sleep(every)


def _print(console: Console, seen: Snapshot) -> None:
    from redline.cli.watch_view import view

    console.print(view(seen, console.width))


def _live(console: Console, opened: Source, every: float) -> None:
    """On the alternate screen; what was seen last stays behind it."""
    from rich.live import Live

    from redline.cli.watch_view import view

    seen = opened.look()
    try:
        first = view(seen, console.width, moving=True)
        with Live(first, console=console, screen=True, auto_refresh=False) as live:
            while not _over(seen):
                time.sleep(every)
                seen = opened.look()
                live.update(view(seen, console.width, moving=True), refresh=True)
    finally:
        _print(console, seen)


def _over(seen: Snapshot) -> bool:
    return seen.status not in ("running", "live")
