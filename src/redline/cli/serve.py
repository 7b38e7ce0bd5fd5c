"""`redline serve`: one engine in the foreground, with its ready time, its pids and its resolved flags."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

if TYPE_CHECKING:
    from redline.engines.engine import Server
    from redline.spec.experiment import Experiment
    from redline.tune.stop import Stop


Model = Annotated[str, typer.Argument(help="folder, hub id, bundled:NAME or shape:NAME")]
Engine = Annotated[str, typer.Option("--engine", "-e", help="redline, transformers-continuous, vllm, …")]
Flags = Annotated[
    list[str] | None, typer.Option("--flag", metavar="FLAG=VALUE", help="a flag of the engine; repeatable")
]
Variables = Annotated[
    list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="for the engine alone; repeatable")
]


def command(
    model: Model,
    engine: Engine,
    flag: Flags = None,
    env: Variables = None,
    python: Annotated[str | None, typer.Option(help="interpreter or virtual environment that has the engine")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on (127.0.0.1 when not given)")] = None,
    port: Annotated[int | None, typer.Option(help="0 picks a free port")] = 8000,
    model_name: Annotated[str | None, typer.Option(help="served name")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None,
    startup_timeout: Annotated[float | None, typer.Option(help="give up after so many seconds")] = None,
    log: Annotated[Path | None, typer.Option(help="folder that keeps the engine's log")] = None,
    db: Annotated[Path | None, typer.Option(help="results file that keeps what is sampled meanwhile")] = None,
    record: Annotated[bool, typer.Option(help="sample GPU, host and engine, once a second, into it")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="the endpoint as JSON, once it is ready")] = False,
) -> None:
    from redline.cli.show import TerminalEvents, stderr
    from redline.tune.serve import serve
    from redline.tune.stop import Stop

    values: dict[str, Any] = {
        "model": [model], "engines": [engine], "python": python, "host": host, "port": port, "dtype": dtype,
        "model_name": model_name, "startup_timeout": startup_timeout,
    }  # fmt: skip
    experiment = _one(values, flag or [], env or [])
    served, spec = experiment.models[0], experiment.engines[0]
    if log is not None:
        log.mkdir(parents=True, exist_ok=True)
    console = stderr()
    with Stop() as stop, TerminalEvents(console) as events:
        events.begin(spec.label)
        with serve(served, spec, artifacts=log, progress=events.phase) as server:
            events.__exit__()
            with _recording(server, experiment, db, record) as run_id:
                _show(server, as_json, run_id)
                _until_stopped(server, spec.label, stop)
            console.print(f"stopping {spec.label}")


def _until_stopped(server: Server, label: str, stop: Stop) -> None:
    """Returns on Ctrl-C; EngineDied when the engine ends by itself."""
    from redline.errors import EngineDied

    with stop.orderly():
        while server.alive() and not stop.asked:
            time.sleep(0.2)
    if not stop.asked:
        tag, meaning, fix = server.diagnose()
        raise EngineDied(f"{label} died", why=meaning, fix=fix, log_tail=server.log_tail(), diagnosis=tag)


@contextmanager
def _recording(server: Server, experiment: Experiment, db: Path | None, wanted: bool) -> Iterator[str]:
    """Id of the run; '' where nothing is recorded. A results file that cannot be written does not keep from serving."""
    from redline.cli.show import stderr
    from redline.errors import StoreFault
    from redline.store.file import default_path
    from redline.store.store import Store
    from redline.tune.serve import recorded

    store = None
    try:
        store = Store.open(db or default_path()) if wanted else None
    except StoreFault as fault:
        if db is not None:
            raise
        stderr().print(f"[yellow]not recording[/] {escape(str(fault))}")
    if store is None:
        yield ""
        return
    with store, recorded(server, experiment, store) as (run_id, _):
        yield run_id


def _one(values: dict[str, Any], flags: list[str], env: list[str]) -> Experiment:
    """The experiment with the one model and the one engine configuration that the flags mean."""
    from redline.errors import UsageError
    from redline.spec.overrides import experiment_from

    experiment = experiment_from(None, values)
    if len(experiment.engines) != 1:
        names = ", ".join(spec.label for spec in experiment.engines)
        raise UsageError(f"this means several configurations: {names}", fix="serve one of them by its name")
    label = experiment.engines[0].label
    values["engine_flag"] = [f"{label}.{item}" for item in flags]
    values["engine_env"] = [f"{label}.{item}" for item in env]
    return experiment_from(None, values)


def _show(server: Server, as_json: bool, run_id: str) -> None:
    import dataclasses

    from rich.console import Console

    from redline.cli.show import print_json

    endpoint = server.endpoint
    if as_json:
        print_json(dataclasses.asdict(endpoint) | {"run": run_id})
        return
    console = Console(highlight=False)
    console.print(
        f"[bold]{escape(endpoint.model)}[/] on {endpoint.engine} {endpoint.engine_version}: {endpoint.base_url}"
    )
    pids = ", ".join(map(str, endpoint.pids))
    total = endpoint.startup_ms.get("total", 0.0) / 1000
    phases = ", ".join(f"{name} {ms / 1000:.1f} s" for name, ms in endpoint.startup_ms.items() if name != "total")
    console.print(f"ready in {total:.1f} s ({phases}), pids {pids}")
    for name, value in sorted(endpoint.flags.items()):
        console.print(f"  {escape(name)}: {escape(value)}", soft_wrap=True)
    if run_id:
        console.print(f"recorded as run {run_id}; redline watch shows it live")
    console.print("Ctrl-C stops it")
