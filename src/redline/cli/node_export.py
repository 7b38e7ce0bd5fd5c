"""`redline node export`: what the plan would change, as something that other tools carry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from redline.cli.node_options import Copy, NoPersist, Only, ProfileOption, Skip


def register(app: typer.Typer) -> None:
    app.command("export")(command)


def command(
    form: Annotated[
        Literal["bash", "ansible", "cloud-init", "tuned", "compose", "systemd"], typer.Option("--as", help="form")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout when not given")] = None,
    profile: ProfileOption = "latency",
    only: Only = None,
    skip: Skip = None,
    no_persist: NoPersist = False,
    root: Copy = None,
    as_json: Annotated[bool, typer.Option("--json", help="the text and the notes as JSON")] = False,
) -> None:
    """Write the planned changes as a script, a playbook, user data, a profile, a unit or a part of a compose file."""
    from redline.cli.node_options import planned, tell_unasked
    from redline.cli.show import print_json, stderr
    from redline.node.export.forms import export, notes
    from redline.node.snapshot import replayed

    with replayed(root) as sys:
        tell_unasked(sys)
        plan = planned(sys, profile, only, skip, no_persist)
    text = export(plan, form, output)
    if as_json:
        print_json({"form": form, "file": str(output) if output else None, "text": text, "notes": notes(plan)})
        return
    if output is None:
        typer.echo(text, nl=False)
    for note in notes(plan):
        stderr().print(f"note: {note}", markup=False, soft_wrap=True)
