"""Readers for whoever turns pages: all runs in short, requests of a point some at a time, one request, what is new.

Nothing here grows with the number of requests but the time that SQLite takes to pass over them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from redline.errors import UsageError
from redline.load.record import RequestRecord
from redline.spec.workload import SLOW_READER
from redline.store import process
from redline.store.file import faults
from redline.store.read import Reader, record_of
from redline.store.rows import RunRow

ORDERS = {
    "slowest": ("e2e", "DESC"),
    "fastest": ("e2e", "ASC"),
    "ttft": ("ttft", "DESC"),
    "longest": ("output_tokens", "DESC"),
    "gap": ("pace", "DESC"),
    "first": ("request_index", "ASC"),
}
"""Order to (what it goes by, direction). Failures come before what they are sorted with, except in `first`."""
KINDS = {
    "measured": "NOT warmup AND canary < 0",
    "counted": "NOT warmup AND canary < 0 AND status NOT IN ('cancelled', 'abandoned')"
    f" AND request_class <> '{SLOW_READER}'",
    "failed": "NOT warmup AND status NOT IN ('ok', 'cancelled', 'abandoned')",
    "cut": "status IN ('cancelled', 'abandoned')",
    "warmup": "warmup",
    "all": "1",
}
_FAILED = "status NOT IN ('ok', 'cancelled', 'abandoned')"
_VALUES = {
    "e2e": "CASE WHEN finished_ns > 0 THEN finished_ns - intended_ns ELSE 0 END",
    "ttft": "CASE WHEN first_chunk_ns > 0 THEN first_chunk_ns - intended_ns ELSE 0 END",
    "pace": "CASE WHEN chunks > 1 THEN (last_chunk_ns - first_chunk_ns) / (chunks - 1) ELSE 0 END",
    "output_tokens": "output_tokens",
    "request_index": "request_index",
}
"""What requests are sorted by."""
_SHORT = f"""id, request_index, intended_ns, sent_ns, first_chunk_ns, last_chunk_ns, finished_ns, chunks, prompt_tokens,
    output_tokens, status, http_status, warmup, canary, request_class, {_VALUES["e2e"]} AS e2e,
    {_VALUES["ttft"]} AS ttft, {_VALUES["pace"]} AS pace, {_FAILED} AS failed"""


@dataclass(frozen=True)
class RunLine:
    """One run in a list. `loads` are the labels of its load points, `done` how many of those have ended."""

    id: str
    name: str
    status: str
    verdict: str
    reasons: tuple[str, ...]
    started_wall: str
    duration_s: float | None
    models: tuple[str, ...]
    engines: tuple[str, ...]
    loads: tuple[str, ...]
    points: int
    done: int
    states: dict[str, int] = field(default_factory=dict)
    """Verdict of a load point to how many have it."""

    @property
    def text(self) -> str:
        """What a search looks into."""
        parts = (self.id, self.name, self.status, self.verdict, *self.models, *self.engines, *self.loads, *self.reasons)
        return " ".join(parts).casefold()


@dataclass(frozen=True)
class RequestLine:
    """One request in a list; times in ns, 0 where it never happened. `pace` is the mean gap between its chunks."""

    id: int
    request_index: int
    intended_ns: int
    sent_ns: int
    first_chunk_ns: int
    last_chunk_ns: int
    finished_ns: int
    chunks: int
    prompt_tokens: int
    output_tokens: int
    status: str
    http_status: int
    warmup: int
    canary: int
    request_class: str
    e2e: int
    ttft: int
    pace: int
    failed: int

    def key(self, order: str) -> str:
        """Where a page that ends with this request goes on."""
        by, direction = ORDERS[order]
        value = getattr(self, by)
        return f"{0 if order == 'first' else -self.failed}.{-value if direction == 'DESC' else value}.{self.id}"


@dataclass(frozen=True)
class Whereabouts:
    """A request and where it belongs."""

    run_id: str
    trial_id: int
    point_id: int
    engine: str
    model: str
    label: str
    measured_from_ns: int
    record: RequestRecord


class Browser(Reader):
    """A `Reader` that gives out little at a time."""

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that is read inside is of one instant, whatever a writer does meanwhile."""
        with self._lock, faults(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def run_lines(self) -> list[RunLine]:
        """All runs, newest first."""
        trials: dict[str, list[sqlite3.Row]] = {}
        for row in self._rows(_TRIALS):
            trials.setdefault(row["run_id"], []).append(row)
        return [_run_line(row, trials.get(row["id"], [])) for row in self._rows(_RUNS)]

    def stamp(self, run_id: str) -> tuple[Any, ...] | None:
        """Changes whenever what is said of the run's finished points could change; None when there is no such run."""
        sql = """SELECT status, ended_ns, (SELECT count(*) FROM trial WHERE run_id = run.id), (SELECT count(*) FROM
            point JOIN trial ON trial.id = trial_id WHERE run_id = run.id AND point.ended_ns IS NOT NULL), process
            FROM run WHERE id = ?"""
        found = self._rows(sql, (run_id,))
        if not found:
            return None
        dead = found[0]["status"] == "running" and not process.alive(orjson.loads(found[0]["process"]))
        return (*tuple(found[0])[:-1], dead)

    def run_of_point(self, point_id: int) -> RunRow | None:
        """The run that a load point belongs to; None when there is no such point."""
        sql = "SELECT run_id FROM point JOIN trial ON trial.id = trial_id WHERE point.id = ?"
        found = self._rows(sql, (point_id,))
        return self.run(found[0][0]) if found else None

    def request_lines(
        self, point_id: int, order: str = "slowest", kind: str = "measured", after: str = "", limit: int = 50
    ) -> list[RequestLine]:
        """Requests of a load point, `limit` at a time; `after` is the `key` of the last one of the page before."""
        by, direction = ORDERS[order]
        # all ascending, so that one comparison of rows finds the place to go on from
        keys = (
            "0" if order == "first" else f"-({_FAILED})",
            f"{'-' if direction == 'DESC' else ''}({_VALUES[by]})",
            "id",
        )
        sql = f"SELECT {_SHORT} FROM request WHERE point_id = ? AND {KINDS[kind]}"
        parameters: list[int] = [point_id]
        if after:
            sql += f" AND ({', '.join(keys)}) > (?, ?, ?)"
            parameters += _place(after)
        ordered = keys[1:] if order == "first" else keys
        sql += f" ORDER BY {', '.join(ordered)} LIMIT ?"
        return [RequestLine(*row) for row in self._rows(sql, (*parameters, limit))]

    def request_counts(self, point_id: int) -> dict[str, int]:
        """How many requests of a load point are of each kind."""
        sums = ", ".join(f"coalesce(sum({text}), 0)" for text in KINDS.values())
        return dict(
            zip(KINDS, self._rows(f"SELECT {sums} FROM request WHERE point_id = ?", (point_id,))[0], strict=True)
        )

    def request(self, request_id: int) -> Whereabouts | None:
        """One request with its chunks; None when there is none with this id."""
        found = self._rows("SELECT * FROM request WHERE id = ?", (request_id,))
        if not found:
            return None
        about = self._rows(_ABOUT, (found[0]["point_id"],))[0]
        names = ("run_id", "trial_id", "point_id", "engine", "model", "label", "measured_from_ns")
        return Whereabouts(**dict(zip(names, about, strict=True)), record=record_of(found[0]))

    def points_counts(self, run_id: str) -> dict[int, int]:
        """Load point to how many requests of it are stored, warm-up included."""
        sql = """SELECT point.id, (SELECT count(*) FROM request WHERE point_id = point.id) FROM point
            JOIN trial ON trial.id = trial_id WHERE run_id = ?"""
        return {row[0]: row[1] for row in self._rows(sql, (run_id,))}

    def ranked(self, point_id: int, metric: str, place: int) -> int | None:
        """Id of the counted request whose `metric` (ttft or e2e) stands at `place`, from 1; failures last."""
        by = {"ttft": "ttft", "e2e": "e2e"}[metric]
        sql = f"""SELECT id FROM (SELECT {_SHORT} FROM request WHERE point_id = ? AND {KINDS["counted"]})
            ORDER BY failed, {by}, id LIMIT 1 OFFSET ?"""
        found = self._rows(sql, (point_id, place - 1))
        return int(found[0][0]) if found else None

    def newest_requests(self, point_id: int, after: int = 0, most: int = 20_000) -> list[tuple[int, ...]]:
        """(id, intended, first chunk, last chunk, finished, output tokens, chunks, failed, warmup) of a load point's
        requests with an id above `after`, in the order in which they were stored; only of the file's `most` newest."""
        # the plus keeps SQLite from going through all requests of the point: the newest ids are few
        sql = f"""SELECT id, intended_ns, first_chunk_ns, last_chunk_ns, finished_ns, output_tokens, chunks, {_FAILED},
            warmup FROM request WHERE id > max(?, (SELECT coalesce(max(id), 0) FROM request) - ?) AND +point_id = ?
            ORDER BY id"""
        return [tuple(row) for row in self._rows(sql, (after, most, point_id))]

    def sample_names(self, trial_id: int) -> list[str]:
        """Names of what was sampled during a trial."""
        return [row[0] for row in self._rows("SELECT DISTINCT name FROM series WHERE trial_id = ?", (trial_id,))]

    def steps(self, run_id: str) -> Sequence[sqlite3.Row]:
        """(trial, its status, model, engine, repeat, point, label, started_ns, measured_from_ns, ended_ns, verdict) of
        a run, the newest last; a trial without points has one row with none."""
        return self._rows(_STEPS, (run_id,))


def _place(after: str) -> tuple[int, int, int]:
    """UsageError unless it is the `key` of a request."""
    try:
        failed, value, last = map(int, after.split("."))
    except ValueError:
        raise UsageError(f"no page begins after {after!r}", fix="go back to the first page") from None
    if max(abs(value), abs(last)) >= 2**63:
        raise UsageError(f"no page begins after {after!r}", fix="go back to the first page")
    return failed, value, last


_RUNS = """SELECT id, name, status, verdict, reasons, started_wall, started_ns, ended_ns, process FROM run
    ORDER BY id DESC"""
_TRIALS = """SELECT run_id, model, engine, json_group_array(label) FILTER (WHERE label IS NOT NULL) AS labels,
    json_group_array(point.verdict) FILTER (WHERE point.ended_ns IS NOT NULL) AS verdicts
    FROM trial LEFT JOIN point ON point.trial_id = trial.id GROUP BY trial.id ORDER BY trial.id, point.id"""
_ABOUT = """SELECT run_id, trial_id, point.id, engine, model, label, coalesce(measured_from_ns, point.started_ns)
    FROM point JOIN trial ON trial.id = trial_id WHERE point.id = ?"""
_STEPS = """SELECT trial.id AS trial, trial.status, model, engine, repeat, point.id AS point, label, point.started_ns,
    measured_from_ns, point.ended_ns, point.verdict
    FROM trial LEFT JOIN point ON point.trial_id = trial.id WHERE run_id = ? ORDER BY trial.id, point.id"""


def _run_line(row: sqlite3.Row, trials: list[sqlite3.Row]) -> RunLine:
    status, reasons = row["status"], tuple(_list(row["reasons"]))
    if status == "running" and not process.alive(orjson.loads(row["process"])):
        status, reasons = "interrupted", (*reasons, "the process that measured it died before the end")
    labels = [label for trial in trials for label in _list(trial["labels"])]
    verdicts = [verdict for trial in trials for verdict in _list(trial["verdicts"])]
    return RunLine(
        id=row["id"],
        name=row["name"],
        status=status,
        verdict=row["verdict"],
        reasons=reasons,
        started_wall=row["started_wall"],
        duration_s=None if row["ended_ns"] is None else (row["ended_ns"] - row["started_ns"]) / 1e9,
        models=tuple(dict.fromkeys(trial["model"] for trial in trials)),
        engines=tuple(dict.fromkeys(trial["engine"] for trial in trials)),
        loads=tuple(dict.fromkeys(labels)),
        points=len(labels),
        done=len(verdicts),
        states={state: verdicts.count(state) for state in dict.fromkeys(verdicts) if state},
    )


def _list(text: str) -> list[str]:
    """Of JSON; what a damaged file has there instead is no reason to show no runs at all."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return [f"unreadable: {text[:80]}"]
    return [str(entry) for entry in found] if isinstance(found, list) else []
