"""`redline node confirm`: keep a change that would undo itself."""

from __future__ import annotations

from typing import Annotated

import typer

from redline.cli.node_options import Json, Root, StateDir


def register(app: typer.Typer) -> None:
    app.command("confirm")(command)


def command(
    txn: Annotated[str, typer.Argument(help="the transaction")] = "last",
    root: Root = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Say that the box is well and can be reached: the changes stay."""
    from redline.cli.node_options import journals
    from redline.node.commit_confirm import confirm

    done = confirm(journals(root, state_dir), txn)
    if as_json:
        from redline.cli.show import print_json

        print_json({"txn": done.txn, "status": done.status})
    else:
        typer.echo(f"transaction {done.txn} stays")
