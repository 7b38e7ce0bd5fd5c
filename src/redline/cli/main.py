"""The command line: one verb, one file. Only the verb that was typed is imported, so that `--help` stays quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from redline import __version__, blas
from redline.errors import INTERRUPTED, RedlineError

VERBS: dict[str, str] = {
    "compare": "Start each engine in turn, load it, stop it, and say which is better.",
    "bench": "Load a server that is already running.",
    "resume": "Go on with a run that was cut short.",
    "serve": "Start one engine and leave it in the foreground.",
    "watch": "See GPU, host, engine and client live: of a run in progress, an endpoint, or the box.",
    "profile": "Where a decode step and a prefill step go: kernels by class, gaps, launches, the roofline.",
    "explain": "Why some requests of a run were slow, and who was at it when they stalled.",
    "runs": "List what has been measured.",
    "import": "Keep the results of another tool as a run: vLLM, GuideLLM, AIPerf, SGLang, inference-perf.",
    "report": "Show a stored run again, as a table, Markdown, HTML, charts or JSON.",
    "export": "Show runs, GPUs and rules to Prometheus and Grafana.",
    "dashboard": "Draw the dashboards from a Prometheus, without Grafana.",
    "sql": "Ask the results file in SQL.",
    "ui": "The results file as pages in a browser, while it is being written too.",
    "node": "Prepare a GPU box: audit its settings, change them, prove it, undo it.",
    "doctor": "What this box can do, what is missing, and how to get it.",
}

_MODULES = {"import": "redline.cli.import_"}
"""Verbs that no Python module can be called."""

_FAMILIES = {"node", "export", "dashboard"}
"""Verbs that have verbs of their own."""

EPILOG = (
    "Exit codes: 0 ok · 1 bug · 2 usage · 3 environment · 4 engine failed · 5 threshold missed · 6 unsupported here"
    " or cannot be judged · 130 interrupted"
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"redline {__version__}")
        raise typer.Exit


def application(verb: str = "") -> typer.Typer:
    """The application with `verb` wired up and the others as names only; `*` wires up all of them."""
    app = typer.Typer(
        name="redline",
        help="From a GPU box and a model to a proven LLM serving configuration.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def main(
        version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    ) -> None:
        pass

    for name, purpose in VERBS.items():
        if name in _FAMILIES and verb in (name, "*"):
            app.add_typer(importlib.import_module(f"redline.cli.{name}").application(), name=name, help=purpose)
            continue
        command = (
            importlib.import_module(_MODULES.get(name, f"redline.cli.{name}")).command
            if verb in (name, "*")
            else _name_only
        )
        app.command(name, help=purpose)(command)
    return app


def _name_only() -> None:
    """Stands for a verb that was not typed."""


def run() -> None:
    """Entry point of `redline`. Every error becomes three lines and an exit code; a traceback is a bug."""
    blas.one_thread()
    arguments = sys.argv[1:]
    verb = next((word for word in arguments if not word.startswith("-")), "")
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    try:
        application("*" if completing else verb)(prog_name="redline")
    except RedlineError as error:
        from redline.cli.show import show_error

        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # `redline runs | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    run()
