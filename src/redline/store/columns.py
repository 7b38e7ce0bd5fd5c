"""Rows of the request table as columns, a batch at a time: a million requests never exist as a million tuples."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson

from redline.store.chunks import decode_all_times, decode_all_tokens
from redline.store.requests import Ints, Requests

_BATCH = 8192
_SAMPLE = 2000

_NUMBERS = (
    *("index", "intended_ns", "sent_ns", "connected_ns", "first_byte_ns", "answer_first_ns", "finished_ns"),
    *("prompt_tokens", "cached_tokens", "asked_prompt_tokens", "output_tokens", "asked_output_tokens"),
    *("shared_stamps", "session", "turn"),
)
_NAMES = ("status", "token_source", "finish_reason", "stamp", "request_class")
_KIND = (*_NAMES, "http_status", "canary", "warmup")
"""What most requests of a point have in common: read as one value, and as nothing at all where it is the usual one."""


def read_columns(db: sqlite3.Connection, point_id: int) -> Requests:
    """All requests of a load point, in the order of their index."""
    kind = f"json_array({', '.join(_KIND)})"
    sample = f"SELECT * FROM request WHERE point_id = ? LIMIT {_SAMPLE}"
    usual = db.execute(f"SELECT {kind} FROM ({sample}) GROUP BY 1 ORDER BY count(*) DESC LIMIT 1", (point_id,))
    kinds: dict[str | None, int] = {None: 0}
    known = [orjson.loads(row[0]) for row in usual] or [["", "", "", "", "", 0, -1, 0]]
    numbers = ", ".join(_NUMBERS).replace("index", "request_index", 1)
    sql = f"""SELECT {numbers}, chunk_ns, chunk_tokens,
        CASE WHEN {" AND ".join(f"{name} = ?" for name in _KIND)} THEN NULL ELSE {kind} END
        FROM request WHERE point_id = ? ORDER BY request_index, id"""
    cursor = db.execute(sql, (*known[0], point_id))
    cursor.row_factory = None
    parts: list[Ints] = []
    codes: list[Ints] = []
    times: list[bytes] = []
    tokens: list[bytes] = []
    with _no_garbage():
        while rows := cursor.fetchmany(_BATCH):
            columns = list(zip(*rows, strict=True))
            parts.append(np.array(columns[:-3], dtype=np.int64))
            times += columns[-3]
            tokens += columns[-2]
            codes.append(np.array([kinds.setdefault(word, len(kinds)) for word in columns[-1]], dtype=np.int64))
    known += [orjson.loads(word) for word in kinds if word is not None]
    return _requests(parts, known, codes, times, tokens)


def _requests(
    parts: list[Ints], known: list[list[Any]], codes: list[Ints], times: list[bytes], tokens: list[bytes]
) -> Requests:
    whole: Any = np.concatenate(parts, axis=1) if parts else np.zeros((len(_NUMBERS), 0), np.int64)
    parts.clear()
    code = np.concatenate(codes) if codes else np.zeros(0, np.int64)
    shared: dict[str, Any] = {
        name: np.array([kind[place] for kind in known], dtype=np.str_ if name in _NAMES else np.int64)[code]
        for place, name in enumerate(_KIND)
    }
    shared["warmup"] = shared["warmup"].astype(np.bool_)
    chunk_start, chunk_ns = decode_all_times(times)
    times.clear()
    return Requests(
        **dict(zip(_NUMBERS, whole, strict=True)),
        **shared,
        chunk_start=chunk_start,
        chunk_ns=chunk_ns,
        chunk_tokens=decode_all_tokens(tokens),
    )


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Looking for cycles among millions of new tuples, of which none is part of one, takes longer than making them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
