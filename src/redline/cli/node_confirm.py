"""`redline node confirm`: keep a change that would undo itself."""

from __future__ import annotations

from typing import Annotated

import typer

from redline.cli.node_options import Json, Root, StateDir


def register(app: typer.Typer) -> None:
    app.command("confirm")(command)


def command(
    txn: Annotated[str, typer.Argument(help="the transaction")] = "last",
    for_good: Annotated[
        bool, typer.Option("--for-good", help="also what the next boot would have to prove, without waiting for it")
    ] = False,
    root: Root = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Say that the box is well and can be reached: the changes stay."""
    from redline.cli.node_options import box, journals
    from redline.node.commit_confirm import confirm

    done = confirm(journals(root, state_dir), txn, sys=box(root), for_good=for_good)
    if as_json:
        from redline.cli.show import print_json

        print_json({"txn": done.txn, "status": done.status})
    elif done.status == "unconfirmed":
        typer.echo(f"transaction {done.txn} stays until the next boot; confirm it again after that, or it is undone")
    else:
        typer.echo(f"transaction {done.txn} stays")
