"""`redline compare`: start each engine in turn, load it, stop it, and say which is better."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from redline.cli.options import Db, File, Json, Output, PrintExperiment, read_experiment, with_flags
from redline.spec.experiment import Experiment

if TYPE_CHECKING:
    from redline.tune.compare import Outcome


@with_flags("--url")
def command(
    file: File = None,
    db: Db = None,
    output: Output = None,
    print_experiment: PrintExperiment = False,
    as_json: Json = False,
    *,
    values: dict[str, Any],
) -> None:
    experiment = read_experiment(file, values, ("--model", "--engines"))
    carry_out(experiment, print_only=print_experiment, db=db, output=output, as_json=as_json)


def carry_out(experiment: Experiment, *, print_only: bool, db: Path | None, output: Path | None, as_json: bool) -> None:
    """Runs the experiment and reports, or only writes it as YAML."""
    if print_only:
        from redline.spec.dump import dump_experiment

        typer.echo(dump_experiment(experiment), nl=False)
    else:
        run_and_report(experiment, db=db, output=output, as_json=as_json)


def run_and_report(experiment: Experiment, *, db: Path | None, output: Path | None, as_json: bool) -> None:
    """Runs it, prints the table, writes the HTML report, and leaves with the code that fits the outcome."""
    from redline.cli.show import TerminalEvents
    from redline.tune.compare import compare

    with TerminalEvents() as events:
        outcome = compare(experiment, db=db, argv=["redline", *sys.argv[1:]], events=events)
    report_outcome(outcome, db=db, output=output, as_json=as_json)


def report_outcome(outcome: Outcome, *, db: Path | None, output: Path | None, as_json: bool) -> None:
    """The report of a run that just ended, and its exit code."""
    from redline.cli.report import render
    from redline.errors import INTERRUPTED

    render([outcome.run_id], db=db, output=output, as_json=as_json)
    if outcome.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if outcome.errors:
        raise typer.Exit(outcome.errors[0].exit_code)
