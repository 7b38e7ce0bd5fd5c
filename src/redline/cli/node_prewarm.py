"""`redline node prewarm`: a model's files into the page cache, and whether they stayed there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("prewarm")(command)


def command(
    model: Annotated[Path, typer.Argument(help="folder of the model")],
    workers: Annotated[int, typer.Option(help="parallel readers; 0: two per core, 4 to 16")] = 0,
    force: Annotated[bool, typer.Option("--force", help="also where it does not fit")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON")] = False,
) -> None:
    """Read a model's files into the page cache and check that they stayed. Ends with 5 when they did not."""
    from redline.cli.show import print_json
    from redline.errors import INTERRUPTED, ThresholdMissed
    from redline.node.prewarm import STAYED, prewarm

    with progress_bar("prewarming") as progress:
        done = prewarm(model, workers=workers, force=force, progress=progress)
    share = "unknown: the files belong to another user" if done.share is None else f"{done.share:.1%}"
    if as_json:
        print_json(done.as_dict())
    else:
        typer.echo(
            f"{len(done.files)} files, {done.size / 1e9:.2f} GB: read {done.read / 1e9:.2f} GB in {done.seconds:.1f} s"
            f" ({done.gb_per_s:.2f} GB/s, {done.workers} readers), resident {share}"
        )
    if done.interrupted:
        raise typer.Exit(INTERRUPTED)
    if done.share is not None and done.share < STAYED:
        worst = min(done.files, key=lambda file: (file.after or 0) / file.size if file.size else 1.0)
        raise ThresholdMissed(
            f"only {share} stayed in the page cache",
            why=f"the kernel took pages back, or the filesystem has no page cache; least is there of {worst.name}",
            fix="free memory, or raise the control group's limit: redline node facts shows it",
        )


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Bytes done of bytes in all, on a terminal only."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from redline.cli.show import stderr

    console = stderr()
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
