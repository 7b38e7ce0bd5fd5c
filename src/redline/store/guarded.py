"""SQL from a page: one SELECT, no other file, no long wait, no endless table."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.errors import UsageError
from redline.store.file import faults, open_readonly
from redline.store.sql import FUNCTIONS, _add_functions, _answer

MOST_ROWS = 1000
MOST_TEXT = 2000
TIME_LIMIT_S = 10.0
MOST_SQL = 20_000
_STEPS = 2_000

_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_FUNCTION,
}
_NOT_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zeroblob", "randomblob"}
"""`zeroblob` and `randomblob` would fill memory in one step, which no time limit can stop."""
_PRAGMAS = {
    "table_info",
    "index_list",
    "index_info",
    "user_version",
    "application_id",
    "quick_check",
    "integrity_check",
}


@dataclass(frozen=True)
class Answer:
    """`cut` when there were more rows than are shown; long values are cut, too."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    seconds: float
    cut: bool


def ask_guarded(sql: str, path: Path, *, limit_s: float = TIME_LIMIT_S, most: int = MOST_ROWS) -> Answer:
    """The answer to one statement that only reads. UsageError says what was wrong with it, or that it took too long."""
    if len(sql) > MOST_SQL:
        raise UsageError(f"a statement of {len(sql):,} characters is too long", fix="redline sql has no such limit")
    db = open_readonly(path)
    began = time.monotonic()
    try:
        _add_functions(db)
        for table in ("json_each", "json_tree"):  # they declare themselves when first used, which nobody may later
            db.execute(f"SELECT 1 FROM {table}('[]')").fetchall()
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 64 << 20)
        db.set_authorizer(_may)
        db.set_progress_handler(lambda: time.monotonic() - began > limit_s, _STEPS)
        with faults(path):
            columns, rows = _first(db, sql.strip().rstrip(";"), path, most, limit_s)
    finally:
        db.close()
    shown = tuple(tuple(map(_short, row)) for row in rows[:most])
    return Answer(tuple(columns), shown, time.monotonic() - began, len(rows) > most)


def _first(db: sqlite3.Connection, sql: str, path: Path, most: int, limit_s: float) -> tuple[list[str], list[Any]]:
    """One row more than is shown, to know whether there are more."""
    try:
        return _answer(db, sql, path, most + 1)
    except KeyboardInterrupt:
        raise UsageError(
            f"the query was stopped after {limit_s:g} s",
            why="a page must not keep the box busy while something is measured",
            fix="narrow it down, or take your time in a terminal: redline sql",
        ) from None


def _may(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _NOT_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_OK if (first or "").lower() in _PRAGMAS else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _short(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"BLOB, {len(value):,} bytes (chunk_times() and chunk_counts() read those of requests)"
    if isinstance(value, str) and len(value) > MOST_TEXT:
        return f"{value[:MOST_TEXT]}… ({len(value):,} characters)"
    return value


__all__ = ["FUNCTIONS", "Answer", "ask_guarded"]
