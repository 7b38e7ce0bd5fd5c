"""A stored load point as a trace: the same requests at the same times, to be sent again."""

from __future__ import annotations

from pathlib import Path

from redline.errors import UsageError
from redline.load.trace import Row
from redline.store.read import Reader
from redline.store.rows import PointRow, RunRow
from redline.units import NS_PER_S


def recorded(what: str, own: Reader) -> list[Row]:
    """Measured requests of `redline:RUN` (in the results file that is being written), or of the newest run in another
    results file. `…/2` takes the second load point, in the order in which they were measured; else it is the first.
    UsageError when there is none."""
    if what.startswith("redline:"):
        run, _, number = what.removeprefix("redline:").partition("/")
        return _rows(own, run or "last", number, what)
    path, _, number = what.rpartition("/") if what.rpartition("/")[2].isdigit() else (what, "", "")
    with Reader.open(Path(path)) as reader:
        return _rows(reader, "last", number, what)


def _rows(reader: Reader, run: str, number: str, what: str) -> list[Row]:
    points = _points(reader.run(run))
    if run == "last" and not points:  # the newest is the one that is going on
        points = next((found for one in reader.runs() if (found := _points(one))), [])
    at = int(number) - 1 if number.isdigit() else 0
    if not 0 <= at < len(points):
        raise UsageError(f"{what}: that run has {len(points)} load points that were measured to the end")
    return _of_point(reader, points[at])


def _points(run: RunRow) -> list[PointRow]:
    """Load points that were measured to the end, in that order."""
    found = [point for trial in run.trials for point in trial.points if point.complete]
    return sorted(found, key=lambda point: point.id)


def _of_point(reader: Reader, point: PointRow) -> list[Row]:
    requests = reader.requests(point.id)
    own = requests.pick(~requests.warmup & (requests.canary < 0))
    rows = []
    for i in range(len(own)):
        session, end = int(own.session[i]), int(own.finished_ns[i])
        rows.append(
            Row(
                at_s=int(own.intended_ns[i]) / NS_PER_S,
                prompt_tokens=int(own.prompt_tokens[i] or own.asked_prompt_tokens[i]),
                output_tokens=int(own.asked_output_tokens[i] or own.output_tokens[i]),
                session=f"s{session}" if session >= 0 else "",
                took_s=max(end - int(own.intended_ns[i]), 0) / NS_PER_S if end else 0.0,
                request_class=str(own.request_class[i]),
            )
        )
    return rows
