"""Nsight Systems' SQLite export (`nsys export --type sqlite`), read into the same columns as a Chrome trace.

Tables as NVIDIA documents them: CUPTI_ACTIVITY_KIND_KERNEL, _MEMCPY, _MEMSET and _RUNTIME, NVTX_EVENTS, StringIds.
Times there are in ns. Tables and columns that a version lacks are left out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redline.errors import UsageError
from redline.observe.trace.columns import ANNOTATION, COPY, KERNEL, LAUNCH, Collector, Readout, Row, TraceColumns

SQLITE = b"SQLite format 3\x00"
BATCH = 50_000
PUSH_POP, START_END = 59, 60
"""Kinds of NVTX_EVENTS that are ranges."""
_COPIES = {1: "HtoD", 2: "DtoH", 8: "DtoD", 10: "PtoP"}
_LAUNCHING = ("aunch", "emcpy", "emset")


def read_nsys(path: Path) -> TraceColumns:
    """UsageError when it is no export of nsys, or holds no kernel and no range."""
    readout, collector = Readout(str(path), bytes_read=path.stat().st_size), Collector()
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be opened: {error}") from error
    try:
        tables = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
        if "StringIds" not in tables:
            raise UsageError(f"{path} is no export of nsys: it has no table StringIds")
        texts = {int(key): str(value) for key, value in db.execute("SELECT id, value FROM StringIds")}
        for table, reader in _READERS.items():
            if table in tables:
                _take(reader(_Table(db, table, texts), collector), collector, readout)
    except sqlite3.DatabaseError as error:
        readout.trouble = f"the file is damaged: {error}"
    finally:
        db.close()
    readout.kept = collector.count
    if not collector.count:
        raise UsageError(
            f"{path} holds no kernel, copy or range",
            why=readout.trouble or "the capture was empty",
            fix="nsys profile --trace=cuda,nvtx …",
        )
    return collector.columns(readout)


def _take(rows: Iterator[Row], collector: Collector, readout: Readout) -> None:
    part: list[Row] = []
    for row in rows:
        readout.events += 1
        part.append(row)
        if len(part) >= BATCH:
            collector.add(part)
            part = []
    collector.add(part)


class _Table:
    """Rows of one table as dictionaries of the columns that it has."""

    def __init__(self, db: sqlite3.Connection, name: str, texts: dict[int, str]) -> None:
        self._db, self._name, self.texts = db, name, texts
        self._has = {str(row[1]) for row in db.execute(f"PRAGMA table_info({name})")}

    def rows(self, *wanted: str) -> Iterator[dict[str, Any]]:
        names = [name for name in wanted if name in self._has]
        if not {"start", "end"} <= set(names):
            return
        columns = ", ".join(f'"{name}"' for name in names)
        for row in self._db.execute(f"SELECT {columns} FROM {self._name}"):
            found = dict(zip(names, row, strict=True))
            if found["start"] is not None and found["end"] is not None:
                yield found

    def text(self, key: Any, otherwise: str) -> str:
        return self.texts.get(int(key), otherwise) if key is not None else otherwise


def _kernels(table: _Table, collector: Collector) -> Iterator[Row]:
    for row in table.rows("start", "end", "deviceId", "streamId", "correlationId", "demangledName", "shortName"):
        name = table.text(row.get("demangledName"), "") or table.text(row.get("shortName"), "kernel without a name")
        yield _row(KERNEL, name, row, _stream(row, collector), collector)


def _memcpy(table: _Table, collector: Collector) -> Iterator[Row]:
    for row in table.rows("start", "end", "deviceId", "streamId", "correlationId", "copyKind"):
        name = f"Memcpy {_COPIES.get(int(row.get('copyKind') or 0), 'of another kind')}"
        yield _row(COPY, name, row, _stream(row, collector), collector)


def _memset(table: _Table, collector: Collector) -> Iterator[Row]:
    for row in table.rows("start", "end", "deviceId", "streamId", "correlationId"):
        yield _row(COPY, "Memset", row, _stream(row, collector), collector)


def _runtime(table: _Table, collector: Collector) -> Iterator[Row]:
    for row in table.rows("start", "end", "globalTid", "correlationId", "nameId"):
        name = table.text(row.get("nameId"), "")
        if any(word in name for word in _LAUNCHING):
            yield _row(LAUNCH, name, row, _thread(row, collector), collector)


def _nvtx(table: _Table, collector: Collector) -> Iterator[Row]:
    for row in table.rows("start", "end", "text", "textId", "globalTid", "eventType"):
        name = row.get("text") or table.text(row.get("textId"), "")
        if name and row.get("eventType", PUSH_POP) in (PUSH_POP, START_END):
            yield _row(ANNOTATION, str(name), row, _thread(row, collector), collector)


def _row(kind: int, name: str, row: dict[str, Any], track: int, collector: Collector) -> Row:
    start, end = int(row["start"]), int(row["end"])
    return kind, collector.name(name), start / 1e3, (end - start) / 1e3, track, int(row.get("correlationId") or 0)


def _stream(row: dict[str, Any], collector: Collector) -> int:
    return collector.track(f"device {row.get('deviceId', 0)}", f"stream {row.get('streamId', 0)}")


def _thread(row: dict[str, Any], collector: Collector) -> int:
    """globalTid packs process and thread: 24 bits each at the end."""
    packed = int(row.get("globalTid") or 0)
    return collector.track((packed >> 24) & 0xFFFFFF, packed & 0xFFFFFF)


_READERS: dict[str, Callable[[_Table, Collector], Iterator[Row]]] = {
    "CUPTI_ACTIVITY_KIND_KERNEL": _kernels,
    "CUPTI_ACTIVITY_KIND_MEMCPY": _memcpy,
    "CUPTI_ACTIVITY_KIND_MEMSET": _memset,
    "CUPTI_ACTIVITY_KIND_RUNTIME": _runtime,
    "NVTX_EVENTS": _nvtx,
}
