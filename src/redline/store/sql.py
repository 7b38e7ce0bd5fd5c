"""One SQL statement against the results file: read-only, with functions for chunk BLOBs and percentiles."""

from __future__ import annotations

import difflib
import re
import sqlite3
from pathlib import Path
from typing import Any, cast

import numpy as np

from redline.errors import UsageError
from redline.store.chunks import times_json, tokens_json
from redline.store.file import explain, faults, open_readonly

FUNCTIONS = {
    "chunk_times(chunk_ns)": "JSON array of arrival times, monotonic ns",
    "chunk_counts(chunk_tokens)": "JSON array of tokens per chunk",
    "percentile(value, 0..100)": "aggregate, linear between neighbours",
    "median(value)": "aggregate",
}


def query(sql: str, path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(columns, rows) of one statement. `.tables` and `.schema [NAME]` work as in the SQLite shell.

    UsageError, with the tables that there are, when the statement is wrong or would write.
    """
    db = open_readonly(path)
    try:
        _add_functions(db)
        # gives Ctrl-C a chance every so many steps of a long query
        db.set_progress_handler(lambda: 0, 200_000)
        with faults(path):
            return _answer(db, sql.strip(), path)
    finally:
        db.close()


def _answer(
    db: sqlite3.Connection, sql: str, path: Path, most: int | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """All rows, or the first `most`."""
    if sql.startswith("."):
        sql, parameters = _dot_command(sql)
    else:
        parameters = ()
    if not sql:
        raise UsageError("an empty query", fix=_tables(db))
    try:
        cursor = db.execute(sql, parameters)
        rows = cursor.fetchall() if most is None else cursor.fetchmany(most)
        return [column[0] for column in cursor.description or ()], rows
    except (sqlite3.Error, sqlite3.Warning) as error:
        text = str(error)
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:  # a column may have that name, too
            raise KeyboardInterrupt from None
        if any(word in text for word in ("readonly", "query_only", "not authorized", "prohibited")):
            raise UsageError("redline sql only reads", why=text, fix=f"to change the file: sqlite3 {path}") from None
        if isinstance(error, sqlite3.DatabaseError) and explain(error, path):
            raise
        raise UsageError(f"SQL: {text}", why=_suggestion(db, text), fix=_tables(db)) from None


def _dot_command(command: str) -> tuple[str, tuple[str, ...]]:
    name, _, argument = command.partition(" ")
    known = "type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    if name == ".tables":
        return f"SELECT name, type FROM sqlite_master WHERE {known} ORDER BY type, name", ()
    if name == ".schema":
        return (
            f"SELECT sql AS 'schema' FROM sqlite_master WHERE {known} AND (? = '' OR name = ?) ORDER BY rowid",
            (argument.strip(), argument.strip()),
        )
    raise UsageError(f"{name} is not known here", fix="SQL, .tables or .schema [NAME]")


def _tables(db: sqlite3.Connection) -> str:
    rows = db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'")
    names = ", ".join(sorted(name for (name,) in rows))
    return f"tables: {names}; functions: {', '.join(FUNCTIONS)}; columns: redline sql .schema"


def _suggestion(db: sqlite3.Connection, text: str) -> str:
    """`did you mean …?` for a table or column that does not exist."""
    missing = re.match(r"no such (?:table|column): (?:\w+\.)?(\w+)", text)
    if not missing:
        return ""
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    columns = {row[1] for table in tables for row in db.execute(f"PRAGMA table_info({table})")}
    near = difflib.get_close_matches(missing[1], tables if "table" in text else sorted(columns), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


class _Percentile:
    """SQL aggregate `percentile(value, p)`; NULLs do not count."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.p = 50.0

    def step(self, value: Any, p: Any = 50.0) -> None:
        if value is not None:
            self.values.append(float(value))
            self.p = float(p)

    def finalize(self) -> float | None:
        return float(np.percentile(self.values, self.p)) if self.values else None


def _add_functions(db: sqlite3.Connection) -> None:
    db.create_function("chunk_times", 1, times_json, deterministic=True)
    db.create_function("chunk_counts", 1, tokens_json, deterministic=True)
    db.create_aggregate("percentile", 2, cast(Any, _Percentile))
    db.create_aggregate("median", 1, cast(Any, _Percentile))
