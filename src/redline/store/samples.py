"""Samples in the results file: ticks in, series out.

A tick is one row with a JSON array: about six bytes a value, one insert for all that a sampler read at an instant, and
plain SQL for whoever reads the file without redline. Reading takes whole rows apart again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
import orjson

from redline.observe.sample import Column
from redline.store.rows import Series

FIRST, BEYOND = -(2**63), 2**63 - 1
_ROWS = 4096


def insert_layout(db: sqlite3.Connection, trial_id: int, columns: Sequence[Column]) -> int:
    """Id of a new layout, whose series are made where the trial does not have them yet."""
    rows = [(trial_id, *column) for column in columns]
    db.executemany("INSERT OR IGNORE INTO series (trial_id, name, unit, labels) VALUES (?, ?, ?, ?)", rows)
    layout = db.execute("INSERT INTO sample_layout (trial_id) VALUES (?)", (trial_id,)).lastrowid or 0
    sql = """INSERT INTO sample_column SELECT ?, ?, id FROM series
        WHERE trial_id = ? AND name = ? AND unit = ? AND labels = ?"""
    db.executemany(sql, ((layout, position, *row) for position, row in enumerate(rows)))
    return layout


def read_series(
    db: sqlite3.Connection, trial_id: int, names: Sequence[str] = (), from_ns: int = FIRST, to_ns: int = BEYOND
) -> list[Series]:
    """Every series of a trial with one of `names` (patterns like `gpu.*`; none: all) that has a value in the window."""
    asked = " OR ".join(["name GLOB ?"] * len(names)) or "1"
    sql = f"SELECT id, name, unit, labels FROM series WHERE trial_id = ? AND ({asked}) ORDER BY id"
    known = db.execute(sql, (trial_id, *names)).fetchall()
    wanted = {row[0] for row in known}
    columns: dict[int, list[tuple[int, int]]] = {}
    of_trial = "SELECT layout_id, position, series_id FROM sample_column JOIN sample_layout ON id = layout_id"
    for layout, position, series in db.execute(f"{of_trial} WHERE trial_id = ?", (trial_id,)):
        if series in wanted:
            columns.setdefault(layout, []).append((position, series))
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for layout, mine in columns.items():
        for times, table in _tables(db, layout, from_ns, to_ns):
            for position, series in mine:
                parts.setdefault(series, []).append((times, table[:, position]))
    return [
        _joined(parts[series], trial_id, name, unit, labels) for series, name, unit, labels in known if series in parts
    ]


def _tables(db: sqlite3.Connection, layout: int, from_ns: int, to_ns: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(times, values [tick, position]) of a layout, some thousand ticks at a time."""
    sql = "SELECT t_ns, value FROM sample_tick WHERE layout_id = ? AND t_ns BETWEEN ? AND ? ORDER BY t_ns, id"
    cursor = db.execute(sql, (layout, from_ns, to_ns))
    cursor.row_factory = None
    while rows := cursor.fetchmany(_ROWS):
        times, values = zip(*rows, strict=True)
        yield np.array(times, np.int64), np.array(orjson.loads(f"[{','.join(values)}]"), np.float64)


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]], trial_id: int, name: str, unit: str, labels: str) -> Series:
    times, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(parts) > 1:
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
    return Series(name, unit, orjson.loads(labels), times, values, trial_id)
