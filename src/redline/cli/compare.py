"""`redline compare`: start each engine in turn, load it, stop it, and say which is better; or two stored runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redline.cli.options import Db, File, Json, Output, PrintExperiment, read_experiment, with_flags
from redline.spec.experiment import Experiment

if TYPE_CHECKING:
    from redline.analyse.threshold import Judged
    from redline.report.model import Report
    from redline.tune.compare import Outcome

STORED = "Stored runs"
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[A B]",
        help="two stored runs: says how far B is from A, measures nothing. Ids, beginnings of ids, last, last~1, "
        "each with :ENGINE if need be. Without them engines are started and measured",
        show_default=False,
    ),
]
Baseline = Annotated[
    str | None, typer.Option(metavar="RUN", help="set the new run against this one", rich_help_panel=STORED)
]
Tolerance = Annotated[
    float,
    typer.Option(min=0, max=99, metavar="PERCENT", help="worsening put up with before it is a regression (exit code 5)",
                 rich_help_panel=STORED),
]  # fmt: skip
Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="such as ttft_ms.p99; repeat it; the usual ones when not given",
                 rich_help_panel=STORED),
]  # fmt: skip


@with_flags("--url")
def command(
    runs: Runs = None,
    file: File = None,
    db: Db = None,
    output: Output = None,
    print_experiment: PrintExperiment = False,
    as_json: Json = False,
    baseline: Baseline = None,
    tolerance: Tolerance = 0.0,
    metric: Metric = None,
    *,
    values: dict[str, Any],
) -> None:
    from redline.cli.versus import Asked

    asked = Asked(tuple(metric or ()), tolerance / 100, db, output, as_json)
    if runs:
        stored(runs, asked, given=[*values, *(["file"] if file else []), *(["baseline"] if baseline else [])])
        return
    experiment = read_experiment(file, values, ("--model", "--engines"))
    if baseline and not print_experiment:
        asked.check(baseline)
        report = run_and_report(experiment, db=db, output=output, as_json=False, quiet=as_json)
        asked.show(baseline, report.runs[0].id)
        check_thresholds(report)
        return
    carry_out(experiment, print_only=print_experiment, db=db, output=output, as_json=as_json)


def stored(runs: list[str], asked: Any, given: list[str]) -> None:
    """A and B from the results file. Flags of an experiment beside them are a mistake, never silently ignored."""
    from redline.errors import UsageError

    if len(runs) != 2:
        raise UsageError(
            f"{len(runs)} run{'s' if len(runs) > 1 else ''} given, and a comparison takes two",
            why="without any, compare starts engines and measures them",
            fix=f"redline compare {runs[0]} last" if len(runs) == 1 else "redline compare A B",
        )
    if given:
        raise UsageError(
            f"{given[0].replace('_', '-')} belongs to a measurement, and {runs[0]} {runs[1]} are already measured",
            fix="leave out either the two runs or the flags",
        )
    asked.show(*runs)


def carry_out(experiment: Experiment, *, print_only: bool, db: Path | None, output: Path | None, as_json: bool) -> None:
    """Runs the experiment and reports, or only writes it as YAML."""
    if print_only:
        from redline.spec.dump import dump_experiment

        typer.echo(dump_experiment(experiment), nl=False)
    else:
        check_thresholds(run_and_report(experiment, db=db, output=output, as_json=as_json))


def run_and_report(
    experiment: Experiment, *, db: Path | None, output: Path | None, as_json: bool, quiet: bool = False
) -> Report:
    """Runs it, prints the table (nothing on stdout when `quiet`) and writes the HTML report; leaves with the code that
    fits the outcome when something failed."""
    from redline.cli.show import TerminalEvents
    from redline.tune.compare import compare

    with TerminalEvents() as events:
        outcome = compare(experiment, db=db, argv=["redline", *sys.argv[1:]], events=events)
    return report_outcome(outcome, db=db, output=output, as_json=as_json, quiet=quiet)


def report_outcome(
    outcome: Outcome, *, db: Path | None, output: Path | None, as_json: bool, quiet: bool = False
) -> Report:
    """The report of a run that just ended; leaves with its exit code when something failed."""
    from redline.cli.report import render
    from redline.errors import INTERRUPTED

    report = render([outcome.run_id], db=db, output=output, as_json=as_json, quiet=quiet)
    if outcome.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if outcome.errors:
        raise typer.Exit(outcome.errors[0].exit_code)
    return report


def check_thresholds(report: Report) -> None:
    """ThresholdMissed when one is surely not met, ThresholdNotJudged when nothing can be said about one."""
    from redline.errors import ThresholdMissed, ThresholdNotJudged
    from redline.report.thresholds import unmet

    failed, unjudged = unmet(report)
    if failed:
        raise ThresholdMissed(
            f"threshold missed: {failed[0].threshold.text} ({_where(failed)}: {failed[0].value:.4g}{_more(failed)})",
            why="the whole 95 % interval lies on the wrong side of the limit",
            fix="redline report shows every threshold",
        )
    if unjudged:
        raise ThresholdNotJudged(
            f"threshold not judged: {unjudged[0].threshold.text} ({_where(unjudged)}{_more(unjudged)})",
            why=unjudged[0].note,
            fix="what was not judged was not met: redline report shows every threshold and why",
        )


def _where(found: list[Judged]) -> str:
    from redline.report.model import load_label

    first = found[0]
    return f"{first.engine} at {load_label(first.load)}" if first.load else "nowhere"


def _more(found: list[Judged]) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""
