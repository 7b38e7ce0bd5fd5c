"""A results file read as it grows: what was added since the last look. For whoever looks again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from redline.load.record import RequestRecord
from redline.observe.sample import Sample
from redline.store.file import faults, open_readonly
from redline.store.read import record_of

BATCH = 2000


class Tail:
    """Open it, look often, close it; from one thread at a time."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db

    @classmethod
    def open(cls, path: Path) -> Self:
        """StoreFault when there is no results file at `path`."""
        return cls(path, open_readonly(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def requests(self, point_id: int, after: int = 0, most: int = BATCH) -> tuple[int, list[RequestRecord]]:
        """Those of a load point that were stored after the row `after`, oldest first, and the row to go on from."""
        sql = "SELECT * FROM request WHERE point_id = ? AND id > ? ORDER BY id LIMIT ?"
        rows = self._rows(sql, (point_id, after, most))
        return (rows[-1]["id"] if rows else after), [record_of(row) for row in rows]

    def behind(self, point_id: int, after: int) -> int:
        """How many requests of the point there are after that row."""
        return int(self._rows("SELECT count(*) FROM request WHERE point_id = ? AND id > ?", (point_id, after))[0][0])

    def newest(self, trial_id: int, since_ns: int) -> list[Sample]:
        """The last one of every series of a trial that is not older than `since_ns`."""
        sql = "SELECT t_ns, name, value, unit, labels FROM sample WHERE trial_id = ? AND t_ns >= ?"
        found: dict[tuple[str, str], sqlite3.Row] = {}
        for row in self._rows(sql, (trial_id, since_ns)):
            key = row["name"], row["labels"]
            if row["value"] is not None and (key not in found or row["t_ns"] >= found[key]["t_ns"]):
                found[key] = row
        return [
            Sample(row["t_ns"], row["name"], row["value"], row["unit"], orjson.loads(row["labels"]))
            for row in found.values()
        ]

    def _rows(self, sql: str, parameters: tuple[Any, ...]) -> list[sqlite3.Row]:
        with self._reading():
            cursor = self._db.cursor()
            cursor.row_factory = sqlite3.Row
            return cursor.execute(sql, parameters).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with faults(self.path):
            yield
