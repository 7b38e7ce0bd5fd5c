"""Readers of the results file. `Reader` gives rows and columns; `query` answers one SQL statement."""

from __future__ import annotations

import difflib
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from redline.errors import UsageError
from redline.load.record import RequestRecord, Status, TokenSource
from redline.store import process
from redline.store.chunks import decode_times, decode_tokens
from redline.store.file import artifacts_folder, default_path, faults, open_readonly
from redline.store.requests import Requests
from redline.store.rows import ArtifactRow, EventRow, PointRow, RunRow, Series, SpanRow, TrialRow
from redline.store.samples import BEYOND, FIRST, read_series
from redline.store.sql import query
from redline.store.together import read_point

__all__ = ["Reader", "default_path", "query"]


class Reader:
    """Reads one results file, while it is being written too. Usable from several threads; close it, or use `with`."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """StoreFault when there is no results file at `path`."""
        return cls(path, open_readonly(path))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def runs(self, limit: int = 20) -> list[RunRow]:
        """The newest runs, newest first, with their trials and load points."""
        return [self._run(row) for row in self._rows("SELECT * FROM run ORDER BY id DESC LIMIT ?", (limit,))]

    def run(self, which: str = "last") -> RunRow:
        """The run with this id, or the one that a part of an id fits; `last`, and `last~1` for the one before it.

        UsageError when none or several fit.
        """
        ids = [row["id"] for row in self._rows("SELECT id FROM run ORDER BY id DESC")]
        found = _resolve(which, ids, self.path)
        return self._run(self._rows("SELECT * FROM run WHERE id = ?", (found,))[0])

    def requests(self, point_id: int) -> Requests:
        """All requests of a load point as columns, warm-up included, in the order of their index."""
        with self._reading():
            return read_point(self._db, self.path, point_id)

    def records(self, point_id: int) -> list[RequestRecord]:
        """The requests of a load point one by one, with error texts and what was generated."""
        rows = self._rows("SELECT * FROM request WHERE point_id = ? ORDER BY request_index, id", (point_id,))
        return [record_of(row) for row in rows]

    def errors(self, point_id: int) -> list[tuple[str, int, str, int]]:
        """(status, http_status, error, how often) of failed requests, most frequent first."""
        sql = """SELECT status, http_status, error, count(*) FROM request WHERE point_id = ?
            AND status NOT IN ('ok', 'cancelled', 'abandoned') GROUP BY 1, 2, 3 ORDER BY 4 DESC, 3"""
        return [tuple(row) for row in self._rows(sql, (point_id,))]

    def samples(self, trial_id: int, name: str | None = None) -> list[Series]:
        """What the samplers measured during a trial: one series for each name and set of labels."""
        return self._samples([trial_id], [] if name is None else [name])

    def run_samples(
        self, run_id: str, names: Sequence[str] = (), from_ns: int = FIRST, to_ns: int = BEYOND
    ) -> list[Series]:
        """Every series of a run in [from_ns, to_ns], trial by trial. `names` may hold patterns: `gpu.*`; none: all."""
        trials = [row["id"] for row in self._rows("SELECT id FROM trial WHERE run_id = ? ORDER BY id", (run_id,))]
        return self._samples(trials, names, from_ns, to_ns)

    def _samples(
        self, trials: Sequence[int], names: Sequence[str], from_ns: int = FIRST, to_ns: int = BEYOND
    ) -> list[Series]:
        with self._reading():
            return [one for trial in trials for one in read_series(self._db, trial, names, from_ns, to_ns)]

    def peak(self, trial_id: int, name: str, from_ns: int = FIRST, to_ns: int = BEYOND) -> float | None:
        """Highest value of `name` in a stretch of time, over all labels; None when there is none."""
        peaks = [one.peak for one in self._samples([trial_id], [name], from_ns, to_ns)]
        return max((peak for peak in peaks if peak == peak), default=None)

    def events(self, trial_id: int, from_ns: int = FIRST, to_ns: int = BEYOND) -> list[EventRow]:
        """What took place beside a trial and reaches into [from_ns, to_ns], in the order of time."""
        sql = """SELECT kind, began_ns, ended_ns, who, text FROM event
            WHERE trial_id = ? AND ended_ns >= ? AND began_ns <= ? ORDER BY began_ns, id"""
        return [EventRow(*row) for row in self._rows(sql, (trial_id, from_ns, to_ns))]

    def spans(self, trial_id: int, trace_prefix: str = "") -> list[SpanRow]:
        """Spans of the engine whose trace begins like this, in the order of time."""
        sql = """SELECT trace_id, span_id, parent_id, name, service, began_ns, ended_ns, attributes FROM span
            WHERE trial_id = ? AND trace_id BETWEEN ? AND ? ORDER BY began_ns, id"""
        rows = self._rows(sql, (trial_id, trace_prefix, f"{trace_prefix}g"))  # behind every hex digit; by the index
        return [SpanRow(**dict(row) | {"attributes": orjson.loads(row["attributes"])}) for row in rows]

    def _run(self, row: sqlite3.Row) -> RunRow:
        dead = row["status"] == "running" and not process.alive(orjson.loads(row["process"]))
        artifacts = [_artifact(found, self.path) for found in self._rows(_ARTIFACTS, (row["id"],))]
        points: dict[int, list[PointRow]] = {}
        for point in self._rows(_POINTS, (row["id"],)):
            points.setdefault(point["trial_id"], []).append(_point(point))
        trials = [
            _trial(trial, row["status"] != "running" or dead, points.get(trial["id"], []), artifacts)
            for trial in self._rows("SELECT * FROM trial WHERE run_id = ? ORDER BY id", (row["id"],))
        ]
        fields = _plain(row, RunRow, skip={"trials", "artifacts"})
        if dead:
            fields["status"] = "interrupted"
            fields["reasons"] = (*fields["reasons"], "the process that measured it died before the end")
        return RunRow(**fields, trials=tuple(trials), artifacts=tuple(artifacts))

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._reading():
            cursor = self._db.cursor()
            cursor.row_factory = sqlite3.Row
            return cursor.execute(sql, parameters).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, faults(self.path):
            yield


_ARTIFACTS = "SELECT * FROM artifact WHERE run_id = ? ORDER BY id"
# An unfinished point is shown with the window that its requests span.
_POINTS = """SELECT point.*, point.ended_ns IS NOT NULL AS complete,
    coalesce(point.measured_from_ns, (SELECT min(intended_ns) FROM request WHERE point_id = point.id AND NOT warmup),
        point.started_ns) AS measured_from_known_ns,
    coalesce(point.ended_ns, (SELECT max(max(finished_ns, last_chunk_ns, sent_ns)) FROM request
        WHERE point_id = point.id), point.started_ns) AS ended_known_ns
    FROM point JOIN trial ON trial.id = point.trial_id WHERE trial.run_id = ? ORDER BY point.id"""
_JSON = {"telemetry", "experiment", "provenance", "spec", "endpoint", "flags", "hashes", "startup_ms", "outcome"}
_TUPLES = {"argv", "reasons"}


def _plain(row: sqlite3.Row, record: type, skip: set[str]) -> dict[str, Any]:
    """Columns of `row` that are fields of `record`, JSON decoded."""
    values = {}
    for name in record.__dataclass_fields__.keys() - skip:  # type: ignore[attr-defined]
        value = row[name]
        values[name] = (
            orjson.loads(value) if name in _JSON else tuple(orjson.loads(value)) if name in _TUPLES else value
        )
    return values


def _point(row: sqlite3.Row) -> PointRow:
    fields = _plain(row, PointRow, skip={"complete"})
    fields |= {"measured_from_ns": row["measured_from_known_ns"], "ended_ns": row["ended_known_ns"]}
    return PointRow(**fields, complete=bool(row["complete"]))


def _trial(row: sqlite3.Row, over: bool, points: list[PointRow], artifacts: list[ArtifactRow]) -> TrialRow:
    fields = _plain(row, TrialRow, skip={"points", "artifacts"})
    if over and row["ended_ns"] is None:
        fields["status"] = "interrupted"
    mine = tuple(artifact for artifact in artifacts if artifact.trial_id == row["id"])
    return TrialRow(**fields, points=tuple(points), artifacts=mine)


def _artifact(row: sqlite3.Row, path: Path) -> ArtifactRow:
    fields = _plain(row, ArtifactRow, skip={"path"})
    return ArtifactRow(**fields, path=artifacts_folder(path) / row["path"])


def record_of(row: sqlite3.Row) -> RequestRecord:
    fields = {name: row[name] for name in RequestRecord.__dataclass_fields__ if name in row.keys()}  # noqa: SIM118
    fields |= {
        "index": row["request_index"],
        "chunk_ns": decode_times(row["chunk_ns"]).tolist(),
        "chunk_tokens": decode_tokens(row["chunk_tokens"]).tolist(),
        "status": Status(row["status"]),
        "token_source": TokenSource(row["token_source"]),
        "warmup": bool(row["warmup"]),
    }
    return RequestRecord(**fields)


def _resolve(which: str, ids: list[str], path: Path) -> str:
    """The one id of `ids` (newest first) that is meant."""
    if not ids:
        raise UsageError(f"no run is stored in {path} yet", fix="measure something: redline compare, redline bench")
    back = re.fullmatch(r"last(?:~(\d+))?", which)
    if back:
        steps = int(back[1] or 0)
        if steps >= len(ids):
            raise UsageError(f"{which}: only {len(ids)} runs are stored in {path}")
        return ids[steps]
    fitting = [run for run in ids if run.startswith(which)] or [run for run in ids if which and which in run]
    if len(fitting) == 1 or which in fitting:
        return which if which in fitting else fitting[0]
    if fitting:
        shown = ", ".join(fitting[:5]) + (", ..." if len(fitting) > 5 else "")
        raise UsageError(f"{len(fitting)} runs fit {which!r}: {shown}", fix="give more of the id, or `last`")
    near = difflib.get_close_matches(which, [*ids, "last"], n=1)
    raise UsageError(
        f"no run {which!r} in {path}",
        why=f"the newest is {ids[0]}",
        fix=f"did you mean {near[0]!r}?" if near else "redline runs lists them",
    )
