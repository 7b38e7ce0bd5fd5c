"""`redline node revert`: back to the bytes that were there before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.node_options import Json, Root, StateDir

if TYPE_CHECKING:
    from redline.node.revert import Reverted


def register(app: typer.Typer) -> None:
    app.command("revert")(command)


def command(
    txn: Annotated[str, typer.Argument(help="the transaction, or `last`", show_default=False)] = "",
    everything: Annotated[bool, typer.Option("--all", help="every transaction that still holds, newest first")] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite what somebody else has changed since")] = False,
    leave: Annotated[
        bool, typer.Option("--leave", help="leave what somebody else has changed, revert the rest")
    ] = False,
    root: Root = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Undo what redline has changed, also after a crash in the middle of it."""
    from redline.cli.node_options import box, journals
    from redline.errors import UsageError
    from redline.node.revert import KINDS, revert, revert_all

    if bool(txn) == everything:
        raise UsageError("which transaction?", fix="redline node revert TXN (or last), or --all")
    kinds = KINDS if force else ()
    sys, where = box(root), journals(root, state_dir)
    if everything:
        done = revert_all(sys, where, force=kinds, leave=leave)
    else:
        done = [revert(sys, where, txn, force=kinds, leave=leave)]
    if as_json:
        from redline.cli.show import print_json

        print_json([{**one.__dict__, "left": [left.__dict__ for left in one.left]} for one in done])
        return
    for one in done:
        _show(one)
    if not done:
        typer.echo("there is nothing to revert")


def _show(one: Reverted) -> None:
    if one.before in ("reverted", "rolled back", "empty"):
        typer.echo(f"transaction {one.txn}: {one.before}, there is nothing to revert")
        return
    typer.echo(f"transaction {one.txn}: {len(one.undone)} changes are as they were before")
    for left in one.left:
        typer.echo(f"left: {left}")
    for path in one.gone:
        typer.echo(f"no longer there: {path}")
    for complaint in one.complaints:
        typer.echo(f"note: {complaint}")
