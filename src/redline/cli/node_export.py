"""`redline node export`: what the plan would change, as something that other tools carry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from redline.cli.node_options import Copy, NoPersist, Only, ProfileOption, Skip

WithDrivers = Annotated[
    bool | None,
    typer.Option(
        "--drivers/--no-drivers",
        help="NVIDIA's driver, CUDA, cuDNN, NCCL, TensorRT and container toolkit, too; usual where there is a GPU",
    ),
]
Component = Annotated[
    list[str] | None, typer.Option("--component", metavar="NAME", help="of the drivers, this alone; repeatable")
]


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
    drivers: WithDrivers = None,
    branch: Annotated[str, typer.Option("--driver-branch", help="of the driver")] = "580",
    component: Component = None,
    root: Copy = None,
    as_json: Annotated[bool, typer.Option("--json", help="the text and the notes as JSON")] = False,
) -> None:
    """Write the planned changes as a script, a playbook, user data, a profile, a unit or a part of a compose file."""
    from redline.cli.node_options import planned, tell_unasked
    from redline.cli.show import print_json, stderr
    from redline.node.export.drivers import choose
    from redline.node.export.forms import driver_notes, export, here, notes, wants_drivers
    from redline.node.snapshot import replayed

    with replayed(root) as sys:
        tell_unasked(sys)
        plan = planned(sys, profile, only, skip, no_persist)
        wanted = wants_drivers(sys, form) or bool(component) if drivers is None else drivers
        choice = choose(branch, component or ()) if wanted else None
        told = [*notes(plan), *(driver_notes(choice, here(sys)) if choice else [])]
    text = export(plan, form, output, choice)
    if as_json:
        print_json({"form": form, "file": str(output) if output else None, "text": text, "notes": told})
        return
    if output is None:
        typer.echo(text, nl=False)
    for note in told:
        stderr().print(f"note: {note}", markup=False, soft_wrap=True)
