"""`redline node verify`: is what was set still so, also after a reboot?"""

from __future__ import annotations

from typing import Annotated

import typer

from redline.cli.node_options import Json, Root, StateDir

DRIFT = 5


def register(app: typer.Typer) -> None:
    app.command("verify")(command)


def command(
    txn: Annotated[str, typer.Argument(help="one transaction, or `last`; all when not given", show_default=False)] = "",
    root: Root = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Check that everything redline has set still holds. Exit code 5 when something does not."""
    from redline.cli.node_options import box, journals
    from redline.node.commit_confirm import pending
    from redline.node.verify import BAD, verify

    found = verify(box(root), journals(root, state_dir), txn)
    if as_json:
        from redline.cli.show import print_json

        print_json([one.__dict__ for one in found])
    elif not found:
        typer.echo("redline has changed nothing here, or all of it was reverted")
    else:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, padding=(0, 2, 0, 0))
        for head in ("", "setting", "where", "is", "why", "transaction"):
            table.add_column(head, overflow="fold")
        for one in found:
            colour = "red" if one.state in BAD else "yellow" if one.state != "in force" else "green"
            ids = ", ".join(one.tunable_ids)
            table.add_row(
                f"[{colour}]{one.state}[/]", escape(ids), escape(one.path), escape(one.now), escape(one.why), one.txn
            )
        Console(highlight=False).print(table)
        for text in pending(journals(root, state_dir)):
            typer.echo(f"note: {text}")
    if any(one.state in BAD for one in found):
        raise typer.Exit(DRIFT)
