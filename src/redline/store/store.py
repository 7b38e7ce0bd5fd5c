"""Writes the results file. Requests and samples are buffered and committed by a thread of their own."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson

from redline import __version__
from redline.clock import now_ns, wall_time
from redline.engines.endpoint import Endpoint
from redline.errors import StoreFault, UsageError
from redline.load.record import RequestRecord
from redline.observe.event import Event
from redline.observe.sample import Layout, Layouts, Sample, Tick
from redline.observe.span import Span
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.store import process
from redline.store.encode import (
    INSERT_EVENT,
    INSERT_REQUEST,
    INSERT_SPAN,
    event_row,
    json_text,
    plain_text,
    request_row,
    span_row,
)
from redline.store.file import artifacts_folder, faults, open_writable, transaction
from redline.store.read import Reader
from redline.store.samples import insert_layout
from redline.store.scrub import Scrubber

_T = TypeVar("_T")
COMMIT_EVERY_S = 0.1
COMMIT_EVERY_ROWS = 200
BATCH_ROWS = 1000


class Store(Reader):
    """One writer of one results file, and a reader of it. Thread-safe.

    `add_request` and `add_samples` only append to a buffer, so that the load loop never waits for a disk; everything
    else is on disk when it returns. A full disk shows as DiskFull from the next call, whichever it is; what could not
    be written stays in memory and is tried again, so that room made in time loses nothing.
    """

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        super().__init__(path, db)
        self._requests: deque[tuple[int, RequestRecord]] = deque()
        self._ticks: deque[tuple[int, Tick]] = deque()
        self._beside: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._layouts = Layouts()
        self._layout_ids: dict[tuple[int, Layout], int] = {}
        self._scrub = Scrubber()
        self._fault: Exception | None = None
        self._mine: set[str] = set()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._commit_loop, name="redline-store", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens, makes or brings up to date. StoreTooNew, DiskFull or another StoreFault when that cannot be."""
        store = cls(path, open_writable(path))
        store._bury()
        return store

    @staticmethod
    def open_readonly(path: Path) -> Reader:
        return Reader.open(path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StoreFault:
            if error is None:  # else the error under way says it better
                raise

    def close(self) -> None:
        """Commits what is buffered; a run that was not ended counts as interrupted. Safe to call twice."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._wake.set()
        self._thread.join()
        try:
            self.flush()
            for run_id in sorted(self._mine):
                self._write("UPDATE run SET status = 'interrupted', ended_ns = ? WHERE id = ?", (now_ns(), run_id))
        finally:
            super().close()

    def begin_run(self, experiment: Experiment, provenance: dict[str, Any], argv: list[str]) -> str:
        """Id of the new run, which sorts by time."""
        spec = json_text(self._scrub.value(experiment.model_dump(mode="json")))
        words, box = json_text(self._scrub.argv(argv)), json_text(self._scrub.value(provenance))
        hash_, started_ns, me = experiment.hash(), now_ns(), json_text(process.identity())
        sql = """INSERT INTO run (id, name, experiment, experiment_hash, argv, redline_version, provenance,
            started_wall, started_ns, status, process) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', ?)"""
        while True:
            run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            row = (run_id, experiment.name, spec, hash_, words, __version__, box, wall_time(), started_ns, me)
            try:
                self._write(sql, row)
            except sqlite3.IntegrityError:  # the same four digits in the same second
                continue
            self._mine.add(run_id)
            return run_id

    def resume_run(self, run_id: str) -> None:
        """A run that was cut short is ours now and goes on. UsageError when its process still runs."""
        if self.run(run_id).status == "running":
            raise UsageError(f"run {run_id} is still going on", fix="wait for it, or end it with Ctrl-C")
        me = json_text(process.identity())
        self._write("UPDATE run SET status = 'running', ended_ns = NULL, process = ? WHERE id = ?", (me, run_id))
        self._mine.add(run_id)

    def begin_trial(self, run_id: str, *, model: str, spec: EngineSpec, repeat: int) -> int:
        asked = json_text(self._scrub.value(spec.model_dump(mode="json")))
        sql = """INSERT INTO trial (run_id, model, engine, engine_kind, repeat, spec, started_ns, status)
            VALUES (?, ?, ?, ?, ?, ?, ?, 'starting')"""
        return self._write(sql, (run_id, model, spec.label, spec.kind, repeat, asked, now_ns()))

    def trial_ready(self, trial_id: int, endpoint: Endpoint, hashes: dict[str, str]) -> None:
        """The engine answered; what it is and how long its start took."""
        answer = self._scrub.value(asdict(endpoint))
        sql = """UPDATE trial SET engine_version = ?, endpoint = ?, flags = ?, hashes = ?, startup_ms = ?, ready_ns = ?,
            status = 'ready' WHERE id = ?"""
        parts = [json_text(part) for part in (answer, answer["flags"], hashes, endpoint.startup_ms)]
        self._write(sql, (endpoint.engine_version, *parts, now_ns(), trial_id))

    def end_trial(self, trial_id: int, status: str, error: str = "", diagnosis: str = "") -> None:
        """`status` is done, failed, skipped or interrupted."""
        row = (status, self._scrub.text(plain_text(error)), diagnosis, now_ns(), trial_id)
        self._write("UPDATE trial SET status = ?, error = ?, diagnosis = ?, ended_ns = ? WHERE id = ?", row)

    def begin_point(self, trial_id: int, point: LoadPoint) -> int:
        sql = "INSERT INTO point (trial_id, kind, value, label, started_ns) VALUES (?, ?, ?, ?, ?)"
        return self._write(sql, (trial_id, point.kind, point.value, point.label, now_ns()))

    def add_request(self, point_id: int, record: RequestRecord) -> None:
        """Buffered, committed within 0.2 s; `record` must not change any more. Costs about a microsecond."""
        self._raise_fault()
        self._requests.append((point_id, record))
        if len(self._requests) >= COMMIT_EVERY_ROWS:
            self._wake.set()

    def add_samples(self, trial_id: int, samples: Sequence[Sample]) -> None:
        """Buffered, committed within half a second. Those of one instant that follow each other become one tick."""
        self.add_ticks(trial_id, self._layouts.ticks(samples))

    def add_ticks(self, trial_id: int, ticks: Sequence[Tick]) -> None:
        """Buffered, committed within half a second."""
        self._raise_fault()
        self._ticks.extend((trial_id, tick) for tick in ticks)

    def add_events(self, trial_id: int, events: Sequence[Event]) -> None:
        """Buffered, committed within half a second."""
        self._raise_fault()
        self._beside.extend((INSERT_EVENT, event_row(trial_id, one)) for one in events)

    def add_spans(self, trial_id: int, spans: Sequence[Span]) -> None:
        """Buffered, committed within half a second."""
        self._raise_fault()
        self._beside.extend((INSERT_SPAN, span_row(trial_id, one)) for one in spans)

    def keep_telemetry(self, trial_id: int, told: dict[str, Any]) -> None:
        """What the samplers say of themselves; replaces what they said before."""
        self._write("UPDATE trial SET telemetry = ? WHERE id = ?", (json_text(self._scrub.value(told)), trial_id))

    def end_point(
        self,
        point_id: int,
        *,
        measured_from_ns: int,
        ended_ns: int,
        stopped_by: str,
        outcome: dict[str, Any],
        verdict: str,
        reasons: list[str],
    ) -> None:
        self.flush()
        sql = """UPDATE point SET measured_from_ns = ?, ended_ns = ?, stopped_by = ?, outcome = ?, verdict = ?,
            reasons = ? WHERE id = ?"""
        said, why = json_text(self._scrub.value(outcome)), json_text(self._scrub.value(reasons))
        self._write(sql, (measured_from_ns, ended_ns, stopped_by, said, verdict, why, point_id))

    def end_run(self, run_id: str, status: str, verdict: str, reasons: list[str]) -> None:
        """`status` is done, interrupted or failed. Afterwards the file alone holds everything (no log beside it)."""
        self.flush()
        sql = "UPDATE run SET status = ?, verdict = ?, reasons = ?, ended_ns = ? WHERE id = ?"
        self._write(sql, (status, verdict, json_text(self._scrub.value(reasons)), now_ns(), run_id))
        self._mine.discard(run_id)
        with self._lock, faults(self.path):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def artifact_dir(self, run_id: str) -> Path:
        """The folder for files of this run; made when missing."""
        folder = artifacts_folder(self.path) / run_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreFault(f"cannot make the artifacts folder {folder}", why=str(error)) from error
        return folder

    def add_artifact(self, run_id: str, path: Path, kind: str, *, trial_id: int | None = None) -> None:
        """Keeps path, SHA-256 and size of a finished file. Secrets that we know are first cut out of it.

        A path inside `trial-N/` belongs to trial N of this run unless `trial_id` says otherwise.
        """
        root = artifacts_folder(self.path).resolve()
        whole = path.resolve()
        kept = whole.relative_to(root) if whole.is_relative_to(root) else whole
        try:
            if whole.is_relative_to(root):
                self._scrub.file(whole)
            with whole.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = whole.stat().st_size
        except OSError as error:
            raise StoreFault(f"cannot keep {path}", why=str(error)) from error
        if trial_id is None:
            folder = next((part for part in kept.parts if part.startswith("trial-")), "")
            trial_id = int(folder[6:]) if folder[6:].isdigit() else None
        sql = "INSERT OR REPLACE INTO artifact (run_id, trial_id, kind, path, sha256, bytes) VALUES (?, ?, ?, ?, ?, ?)"
        self._write(sql, (run_id, trial_id, kind, str(kept), digest, size))

    def flush(self) -> None:
        """Commits everything that is buffered."""
        with self._lock, faults(self.path):
            while self._requests or self._ticks or self._beside:
                self._commit_batch()
            self._fault = None

    def _write(self, sql: str, row: Sequence[Any]) -> int:
        """One statement, committed. Returns the id of a new row."""
        self._raise_fault()
        with self._lock, faults(self.path), transaction(self._db):
            return int(self._db.execute(sql, row).lastrowid or 0)

    def _commit_loop(self) -> None:
        while not self._closing:
            self._wake.wait(COMMIT_EVERY_S)
            self._wake.clear()
            try:
                self.flush()
            except Exception as fault:  # whatever it is, the next caller hears of it
                self._fault = fault
                self._wake.clear()  # a full buffer must not make us spin on a full disk

    def _commit_batch(self) -> None:
        with (
            _taken(self._requests) as requests,
            _taken(self._ticks) as ticks,
            _taken(self._beside) as beside,
            self._layouts_on_commit(),
            transaction(self._db),
        ):
            clean = self._scrub.text
            # a generator: SQLite lets go of the interpreter at every row, so the load loop waits microseconds, not ms
            self._db.executemany(INSERT_REQUEST, (request_row(point, record, clean) for point, record in requests))
            rows = [(self._layout_id(trial, one.layout), one.t_ns, one.values) for trial, one in ticks]
            self._db.executemany("INSERT INTO sample_tick (layout_id, t_ns, value) VALUES (?, ?, ?)", rows)
            for sql, row in beside:
                self._db.execute(sql, row)

    @contextmanager
    def _layouts_on_commit(self) -> Iterator[None]:
        """Layouts that were made in a transaction that failed do not exist."""
        before = dict(self._layout_ids)
        try:
            yield
        except BaseException:
            self._layout_ids = before
            raise

    def _layout_id(self, trial_id: int, layout: Layout) -> int:
        found = self._layout_ids.get((trial_id, layout))
        if found is None:
            found = self._layout_ids[trial_id, layout] = insert_layout(self._db, trial_id, layout.columns)
        return found

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _bury(self) -> None:
        """Runs that a dead process left behind are interrupted, and say so to everybody who opens the file."""
        for row in self._rows("SELECT id, process FROM run WHERE status = 'running'"):
            if not process.alive(orjson.loads(row["process"])):
                reasons = json_text(["the process that measured it died before the end"])
                sql = "UPDATE run SET status = 'interrupted', reasons = ? WHERE id = ? AND status = 'running'"
                self._write(sql, (reasons, row["id"]))


@contextmanager
def _taken(buffer: deque[_T]) -> Iterator[list[_T]]:
    """The oldest rows of `buffer`; put back in front when the block fails."""
    batch = [buffer.popleft() for _ in range(min(len(buffer), BATCH_ROWS))]
    try:
        yield batch
    except BaseException:
        buffer.extendleft(reversed(batch))
        raise
