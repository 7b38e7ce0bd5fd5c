"""`redline node snapshot`: a redacted copy of what the reading verbs see, to be looked at elsewhere with --root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("snapshot")(command)


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write")] = Path("redline-box.tar.gz"),
    as_json: Annotated[bool, typer.Option("--json", help="what was written, as JSON")] = False,
) -> None:
    """Copy what facts and audit read, without serial numbers, addresses, ids and names."""
    from redline.cli.show import print_json, stderr, working
    from redline.node.live import LiveSys
    from redline.node.snapshot import snapshot

    with working("reading the box"):
        path = snapshot(LiveSys(), output)
    if as_json:
        print_json({"file": str(path), "bytes": path.stat().st_size})
    else:
        typer.echo(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
        stderr().print(f"look at it anywhere: redline node facts --root {path}", markup=False, soft_wrap=True)
