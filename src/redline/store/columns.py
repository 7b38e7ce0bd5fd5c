"""Rows of the request table as columns, a batch at a time: a million requests never exist as a million tuples."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from redline.store.chunks import decode_all_times, decode_all_tokens
from redline.store.requests import Ints, Requests, Whole

_BATCH = 8192
_SAMPLE = 2000

NUMBERS = (
    *("index", "intended_ns", "sent_ns", "connected_ns", "first_byte_ns", "answer_first_ns", "finished_ns"),
    *("prompt_tokens", "cached_tokens", "asked_prompt_tokens", "output_tokens", "asked_output_tokens"),
    *("shared_stamps", "session", "turn"),
)
_NAMES = ("status", "token_source", "finish_reason", "stamp", "request_class")
_KIND = (*_NAMES, "http_status", "canary", "warmup")
"""What most requests of a point have in common: read as one value, and as nothing at all where it is the usual one."""

FIRST, BEYOND = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Part:
    """n requests of a load point, in the order of their index: `numbers` [NUMBERS, n], `kind[i]` the place in `kinds`
    of the values of _KIND, `chunks[i]` how many chunks; those of all lie end to end."""

    numbers: Ints
    kind: Ints
    kinds: list[list[Any]]
    chunks: Ints
    chunk_ns: Ints
    chunk_tokens: Whole

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """By request, then by chunk."""
        return self.numbers, self.kind, self.chunks, self.chunk_ns, self.chunk_tokens


def read_parts(db: sqlite3.Connection, point_id: int, low: int = FIRST, high: int = BEYOND) -> Iterator[Part]:
    """Requests of a load point whose index is in [low, high), some at a time. All have the same list of `kinds`, which
    grows."""
    kind = f"json_array({', '.join(_KIND)})"
    here = "point_id = ? AND request_index >= ? AND request_index < ?"
    sample = f"SELECT * FROM request WHERE {here} LIMIT {_SAMPLE}"
    usual = db.execute(
        f"SELECT {kind} FROM ({sample}) GROUP BY 1 ORDER BY count(*) DESC LIMIT 1", (point_id, low, high)
    )
    known = [orjson.loads(row[0]) for row in usual] or [["", "", "", "", "", 0, -1, 0]]
    places: dict[str | None, int] = {None: 0}
    numbers = ", ".join(NUMBERS).replace("index", "request_index", 1)
    sql = f"""SELECT {numbers}, chunk_ns, chunk_tokens,
        CASE WHEN {" AND ".join(f"{name} = ?" for name in _KIND)} THEN NULL ELSE {kind} END
        FROM request WHERE {here} ORDER BY request_index, id"""
    cursor = db.execute(sql, (*known[0], point_id, low, high))
    cursor.row_factory = None
    while rows := cursor.fetchmany(_BATCH):
        *columns, times, tokens, words = zip(*rows, strict=True)
        kinds = [places.setdefault(word, len(places)) for word in words] if any(words) else [0] * len(words)
        known += [orjson.loads(word) for word in list(places)[len(known) :] if word is not None]
        start, chunk_ns = decode_all_times(times)
        numbered = np.fromiter(chain.from_iterable(columns), np.int64, len(columns) * len(rows)).reshape(
            len(columns), -1
        )
        yield Part(numbered, np.array(kinds), known, np.diff(start), chunk_ns, decode_all_tokens(tokens))


def joined(parts: Iterable[Part]) -> Part:
    """One after the other."""
    nothing: tuple[NDArray[Any], ...] = (
        np.zeros((len(NUMBERS), 0), np.int64),
        *[np.zeros(0, np.int64)] * 3,
        np.zeros(0, np.int8),
    )
    kinds: list[list[Any]] = []
    columns: list[list[NDArray[Any]]] = [[column] for column in nothing]
    for part in parts:
        kinds = part.kinds
        for column, some in zip(columns, part.arrays, strict=True):
            column.append(some)
    numbers, kind, chunks, chunk_ns, chunk_tokens = (np.concatenate(column, axis=-1) for column in columns)
    return Part(numbers, kind, kinds, chunks, chunk_ns, chunk_tokens)


def requests_of(part: Part) -> Requests:
    """As `analyse` takes them."""
    shared: dict[str, Any] = {
        name: np.array([kind[place] for kind in part.kinds], dtype=np.str_ if name in _NAMES else np.int64)[part.kind]
        for place, name in enumerate(_KIND)
    }
    shared["warmup"] = shared["warmup"].astype(np.bool_)
    return Requests(
        **dict(zip(NUMBERS, part.numbers, strict=True)),
        **shared,
        chunk_start=np.concatenate(([0], np.cumsum(part.chunks))).astype(np.int64),
        chunk_ns=part.chunk_ns,
        chunk_tokens=part.chunk_tokens,
    )
