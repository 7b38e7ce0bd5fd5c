"""`redline node plan`: the exact diff of live values and files, and what it would hit. Changes nothing."""

from __future__ import annotations

import typer

from redline.cli.node_options import Copy, Json, NoPersist, Only, ProfileOption, Skip


def register(app: typer.Typer) -> None:
    app.command("plan")(command)


def command(
    profile: ProfileOption = "latency",
    only: Only = None,
    skip: Skip = None,
    no_persist: NoPersist = False,
    root: Copy = None,
    as_json: Json = False,
) -> None:
    """Show the exact diff of live values and files, what needs a reboot, the risk, and what else is hit."""
    from redline.cli.node_options import planned, show_plan, tell_unasked
    from redline.node.snapshot import replayed

    with replayed(root) as sys:
        tell_unasked(sys)
        made = planned(sys, profile, only, skip, no_persist)
    if as_json:
        from redline.cli.show import print_json

        print_json(made.to_json())
    else:
        show_plan(made)
