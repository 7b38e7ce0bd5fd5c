"""`redline resume`: measure what a run that was cut short still lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from redline.cli.options import Db, Json, Output


def command(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="id, beginning of an id, or `last`")] = "last",
    db: Db = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    from redline.cli.compare import report_outcome
    from redline.cli.show import TerminalEvents
    from redline.tune.resume import resume

    with TerminalEvents() as events:
        outcome = resume(run, db=db, events=events)
    report_outcome(outcome, db=db, output=output, as_json=as_json)
