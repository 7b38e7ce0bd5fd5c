"""`redline node export`: what the plan would change, as something that other tools carry out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from redline.cli.node_options import Copy, NoPersist, Only, ProfileOption, Skip

Form = Annotated[
    Literal["bash", "ansible", "cloud-init", "tuned", "compose", "systemd"], typer.Option("--as", help="form")
]
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
ExperimentFile = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="YAML", help="compose: the whole stack of this experiment")
]
EngineName = Annotated[str, typer.Option(help="with -f: which engine of the experiment")]
ModelName = Annotated[str, typer.Option(help="with -f: which model of the experiment")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout when not given")]


def register(app: typer.Typer) -> None:
    app.command("export")(command)


def command(
    form: Form,
    output: Output = None,
    profile: ProfileOption = "latency",
    only: Only = None,
    skip: Skip = None,
    no_persist: NoPersist = False,
    drivers: WithDrivers = None,
    branch: Annotated[str, typer.Option("--driver-branch", help="of the driver")] = "580",
    component: Component = None,
    root: Copy = None,
    file: ExperimentFile = None,
    engine: EngineName = "",
    model: ModelName = "",
    gpus: Annotated[str, typer.Option(help="with -f: all, none, or numbers such as 0,1")] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="the text and the notes as JSON")] = False,
) -> None:
    """Write the planned changes as a script, a playbook, user data, a profile, a unit or a part of a compose file."""
    from redline.cli.node_options import planned, tell_unasked
    from redline.cli.show import print_json, stderr
    from redline.node.export.drivers import choose
    from redline.node.export.forms import export, remarks, wants_drivers
    from redline.node.snapshot import replayed

    if file is not None:
        _stack(form, file, output, engine, model, gpus, as_json)
        return
    with replayed(root) as sys:
        tell_unasked(sys)
        plan = planned(sys, profile, only, skip, no_persist)
        wanted = wants_drivers(sys, form) or bool(component) if drivers is None else drivers
        choice = choose(branch, component or ()) if wanted else None
        told = remarks(sys, plan, form, choice)
    text = export(plan, form, output, choice)
    if as_json:
        print_json({"form": form, "file": str(output) if output else None, "text": text, "notes": told})
        return
    if output is None:
        typer.echo(text, nl=False)
    for note in told:
        stderr().print(f"note: {note}", markup=False, soft_wrap=True)


def _stack(form: str, file: Path, output: Path | None, engine: str, model: str, gpus: str, as_json: bool) -> None:
    """A Compose project in the folder `output`: engine, redline, Prometheus, exporters, Grafana."""
    from redline.cli.show import print_json, stderr
    from redline.cluster.compose import stack
    from redline.errors import UsageError
    from redline.spec.load_file import load_experiment

    if form != "compose":
        raise UsageError(f"an experiment is not exported as {form}", fix="--as compose, or leave -f out")
    if output is None:
        raise UsageError("the stack of an experiment is several files", fix="--output FOLDER")
    written = stack(load_experiment(file, {}), output, engine=engine, model=model, gpus=gpus)
    if as_json:
        print_json({"form": form, "files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(path)
    text = (
        f"start it with: docker compose -f {written[0]} up -d --wait (the images are pulled then, none was pulled here)"
    )
    stderr().print(text, markup=False, soft_wrap=True)
