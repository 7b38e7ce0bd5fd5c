"""The options of `compare` and `bench`: made from `spec.overrides.FLAGS`, so that a flag is always a field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from redline.spec.experiment import Experiment
from redline.spec.overrides import FLAGS, Flag, experiment_from

_PLAIN: dict[str, Any] = {"text": str, "int": int, "float": float, "bool": bool, "list": list[str]}
_SHORT = {"--model": "-m", "--engines": "-e", "--concurrency": "-c"}


def parameter(flag: Flag) -> inspect.Parameter:
    """The typer parameter for one flag; None means that it was not given."""
    names = [flag.name + (f"/{flag.negative}" if flag.negative else "")]
    if flag.name in _SHORT:
        names.append(_SHORT[flag.name])
    kind = Literal[flag.choices] if flag.kind == "choice" else _PLAIN[flag.kind]
    help_text = flag.help.replace("[", "\\[")  # no markup
    option = typer.Option(*names, help=help_text, rich_help_panel=flag.group, metavar=flag.metavar or None)
    return inspect.Parameter(
        flag.python, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def with_flags(*leave_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds every flag but `leave_out` to a command; the command gets those that were given as `values`."""
    flags = [flag for flag in FLAGS if flag.name not in leave_out]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [entry for name, entry in signature.parameters.items() if name != "values"]

        @functools.wraps(command)
        def outer(**arguments: Any) -> None:
            values = {flag.python: arguments.pop(flag.python) for flag in flags}
            command(**arguments, values={name: value for name, value in values.items() if value is not None})

        positional = [entry for entry in own if entry.kind is not inspect.Parameter.KEYWORD_ONLY]
        keyword = [entry for entry in own if entry.kind is inspect.Parameter.KEYWORD_ONLY]
        together = [*positional, *keyword, *map(parameter, flags)]
        outer.__signature__ = signature.replace(parameters=together)  # type: ignore[attr-defined]
        outer.__annotations__ = {entry.name: entry.annotation for entry in together}
        return outer

    return wrap


File = Annotated[Path | None, typer.Option("--file", "-f", help="experiment file; flags win over it", metavar="YAML")]
Db = Annotated[Path | None, typer.Option(help="results file; ./redline-results/redline.db when not given")]
Json = Annotated[bool, typer.Option("--json", help="the result as JSON on stdout")]
PrintExperiment = Annotated[
    bool, typer.Option("--print-experiment", help="write the experiment as YAML, run nothing; -f reads it back")
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="folder for report.html, report.md and charts")]


def read_experiment(file: Path | None, values: dict[str, Any], needed: Iterable[str]) -> Experiment:
    """The experiment, or a usage error that says which flag is missing."""
    from redline.errors import UsageError

    if file is None:
        missing = [name for name in needed if not values.get(name.removeprefix("--").replace("-", "_"))]
        if missing:
            raise UsageError(f"{missing[0]} is missing", fix="give it as a flag, or an experiment file with -f")
    return experiment_from(file, values)
