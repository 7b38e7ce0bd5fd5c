"""`redline node prove`: does a setting help on this box? Both values in turn, the same load, everything put back."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from redline.cli.node_options import Json, ProfileOption, Root, StateDir
from redline.cli.options import Db, File, Output, with_flags

if TYPE_CHECKING:
    from redline.spec.experiment import Experiment
    from redline.tune.prove.prove import Options, Proven

NOTHING_TESTABLE = 6
_MODEL = "bundled:tiny"
_CLIENTS = "8"
"""One load point: every round costs it twice."""
_LEFT_OUT = (
    *("--engines", "--url", "--repeats", "--keep-up", "--rounds", "--threshold"),
    *("--search", "--search-over", "--search-low", "--search-high", "--search-budget", "--search-precision"),
    *("--price-gpu-hour", "--price-gpus", "--price-currency"),
)
_option = functools.partial(typer.Option, rich_help_panel="What is proved")
Settings = Annotated[
    list[str] | None,
    _option(
        "--setting", "-s", metavar="ID[@PLACE][=VALUE]",
        help="repeatable; the value that --profile wants when none is given. Also: load.prewarm, numa.pin[=NODE], "
        "engine.cpus=N, /proc/sys/… or /sys/…=VALUE, control (changes nothing). Without any: all that drift",
    ),
]  # fmt: skip
Measure = Annotated[
    Literal["bench", "http", "load"],
    _option(help="bench: TTFT, ITL, throughput; http: short connections; load: start of the engine"),
]
Engine = Annotated[str, _option("--engine", "-e", help="engine to start", show_default="redline")]
Url = Annotated[str, _option(help="a server that runs already")]
Restart = Annotated[
    str, _option(metavar="COMMAND", help="starts the server at --url again, for settings that act at its start")
]
Rounds = Annotated[int, _option(help="how often each value is measured")]
Metrics = Annotated[list[str] | None, _option("--metric", metavar="NAME", help="such as ttft_ms.p99; repeatable")]
Burst = Annotated[int, _option(min=1, help="http: connections opened together")]
Pids = Annotated[
    list[int] | None, _option("--pid", help="of the engine, for its signals; found by its port when not given")
]
Settle = Annotated[float, _option(min=0, help="seconds after each change")]
MaxRisk = Annotated[int, _option(min=0, max=3, help="of settings that are tried")]
Inert = Annotated[bool, _option("--inert", help="try also what the audit says has no effect here")]
DropUseless = Annotated[
    Path | None, _option(metavar="FILE", help="write the ids that help: `redline node plan --only @FILE`")
]


def register(app: typer.Typer) -> None:
    app.command("prove")(command)


@with_flags(*_LEFT_OUT)
def command(
    setting: Settings = None,
    measure: Measure = "bench",
    engine: Engine = "",
    url: Url = "",
    restart: Restart = "",
    rounds: Rounds = 8,
    metric: Metrics = None,
    burst: Burst = 256,
    pid: Pids = None,
    settle: Settle = 0.5,
    max_risk: MaxRisk = 2,
    inert: Inert = False,
    drop_useless: DropUseless = None,
    profile: ProfileOption = "latency",
    file: File = None,
    root: Root = None,
    state_dir: StateDir = None,
    db: Db = None,
    output: Output = None,
    as_json: Json = False,
    *,
    values: dict[str, Any],
) -> None:
    """Measure a setting's present and wanted value in turn, and put the box back.

    Exit code 0 when verdicts were reached, 6 when nothing could be tested here, 4 when the engine failed, 130 after
    Ctrl-C. After kill -9 `redline node revert last` puts the box back.
    """
    from redline.tune.prove.http import Target
    from redline.tune.prove.prove import Options

    experiment = _experiment(file, values, engine, url)
    target = Target(_listener(url), burst, experiment.load.duration_s) if measure == "http" else None
    options = Options(
        measure=measure, profile=profile, rounds=rounds, restart=restart, http=target, metrics=tuple(metric or ()),
        max_risk=max_risk, settle_s=settle, pids=tuple(pid or ()), inert=inert,
    )  # fmt: skip
    done = _prove(experiment, setting or (), options, root, state_dir, db)
    if drop_useless is not None:
        from redline.tune.prove.prove import worth_keeping

        drop_useless.write_text(worth_keeping(done.proofs))
    _show(done, db, output, as_json)
    _leave(done)


def _prove(
    experiment: Experiment,
    settings: Sequence[str],
    options: Options,
    root: Path | None,
    state_dir: Path | None,
    db: Path | None,
) -> Proven:
    from redline.cli.node_options import box, journals
    from redline.cli.show import TerminalEvents
    from redline.tune.prove.prove import prove

    where = journals(root, state_dir)
    argv = ["redline", *sys.argv[1:]]
    with TerminalEvents() as events:
        return prove(experiment, settings, options, sys=box(root), state_dir=where, db=db, argv=argv, events=events)


def _experiment(file: Path | None, values: dict[str, Any], engine: str, url: str) -> Experiment:
    from redline import hooks
    from redline.errors import UsageError
    from redline.spec.overrides import experiment_from

    if engine and url:
        raise UsageError("--engine starts a server and --url is one that runs", fix="keep one of them")
    given = dict(values)
    if file is None and not any(given.get(name) for name in ("concurrency", "rate", "stages", "trace_speed")):
        given["concurrency"] = [_CLIENTS]
    if url:
        given |= {"url": [url]}
        given.setdefault("model", ["served"] if file is None else None)
    elif engine or file is None:
        usual = "redline" if "redline" in hooks.engine_kinds() else "transformers-continuous"
        given["engines"] = [engine or usual]
        given.setdefault("model", [_MODEL] if file is None else None)
    return experiment_from(file, given)


def _listener(url: str) -> str:
    """The address that answers a GET: the path of `url`, or that which engines have for health."""
    from urllib.parse import urlsplit

    parts = urlsplit(url or "http://127.0.0.1")
    path = parts.path if parts.path.rstrip("/") not in ("", "/v1") else "/health"
    return parts._replace(path=path).geturl()


def _show(done: Proven, db: Path | None, output: Path | None, as_json: bool) -> None:
    from redline.cli.report import render
    from redline.cli.show import print_json, show_error, stderr

    for error in done.errors:
        show_error(error)
    report = render([done.run_id], db=db, output=output, quiet=True)
    if as_json:
        print_json(done.to_json())
        return
    from rich.console import Console

    from redline.report.table import section_parts

    console = Console(highlight=False)
    for section in report.sections:
        if section.key == "node-proof":
            for part in section_parts(section):
                console.print(part)
    useful = ", ".join(done.useful) or "none"
    console.print(f"\nworth keeping: {useful}")
    if done.left:
        fixes = "; ".join(f"redline node revert {txn}" for txn in done.left)
        stderr().print(f"[red]not everything could be put back[/]; try {fixes}", soft_wrap=True)
    else:
        console.print("every setting is as it was before")
    stderr().print(f"all numbers: redline report {done.run_id}", soft_wrap=True)


def _leave(done: Proven) -> None:
    from redline.errors import INTERRUPTED

    if done.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if done.errors:
        raise typer.Exit(done.errors[0].exit_code)
    if not any(proof.effects for proof in done.proofs):
        raise typer.Exit(NOTHING_TESTABLE)
