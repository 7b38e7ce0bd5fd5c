"""`redline bench`: load a server that somebody else runs."""

from __future__ import annotations

from typing import Any

from redline.cli.options import Db, File, Json, Output, PrintExperiment, read_experiment, with_flags


@with_flags(
    "--engines", "--python", "--engine-python", "--engine-env", "--port", "--host", "--random-weights", "--dtype"
)
def command(
    file: File = None,
    db: Db = None,
    output: Output = None,
    print_experiment: PrintExperiment = False,
    as_json: Json = False,
    *,
    values: dict[str, Any],
) -> None:
    from redline.cli.compare import carry_out

    experiment = read_experiment(file, values, ("--url", "--model"))
    carry_out(experiment, print_only=print_experiment, db=db, output=output, as_json=as_json)
