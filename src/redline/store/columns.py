"""Rows of the request table as columns, a batch at a time: a million requests never exist as a million tuples."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
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
_COLUMNS = tuple("request_index" if name == "index" else name for name in NUMBERS)
_KIND = (*_NAMES, "http_status", "canary", "warmup")
"""Few values among many requests: read as one, and as nothing at all where it is the usual one."""

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
    here = (point_id, low, high)
    usual = _Usual(db, here)
    known = [usual.kind]
    places: dict[str | None, int] = {None: 0}
    cursor = db.execute(usual.query, (*usual.parameters, *here))
    cursor.row_factory = None
    while rows := cursor.fetchmany(_BATCH):
        *columns, times, tokens, words, others = zip(*rows, strict=True)
        kinds = [places.setdefault(word, len(places)) for word in words] if any(words) else [0] * len(words)
        known += [orjson.loads(word) for word in list(places)[len(known) :] if word is not None]
        start, chunk_ns = decode_all_times(times)
        numbers = usual.numbers(columns, others)
        yield Part(numbers, np.array(kinds), known, np.diff(start), chunk_ns, usual.chunk_tokens(tokens))


class _Usual:
    """What most of these requests have in common, judged by the first of them: a value that is as usual is compared
    inside SQLite, and Python never makes an object of it. Judged wrongly it costs time and nothing else."""

    def __init__(self, db: sqlite3.Connection, here: tuple[int, int, int]) -> None:
        where = "point_id = ? AND request_index >= ? AND request_index < ?"
        sample = f"FROM (SELECT * FROM request WHERE {where} LIMIT {_SAMPLE})"
        often = f"{sample} GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
        kind = f"json_array({', '.join(_KIND)})"
        found = db.execute(f"SELECT {kind} {often}", here).fetchone()
        self.kind: list[Any] = orjson.loads(found[0]) if found else ["", "", "", "", "", 0, -1, 0]
        found = db.execute(f"SELECT chunk_tokens {often}", here).fetchone()
        self._tokens: bytes = found[0] if found else b""
        ends = ", ".join(f"min({name}), max({name})" for name in _COLUMNS)
        least, most = (db.execute(f"SELECT {ends} {sample}", here).fetchone()[i::2] for i in (0, 1))
        alike = np.array([a is not None and a == b for a, b in zip(least, most, strict=True)])
        self._alike, self._varying = np.flatnonzero(alike), np.flatnonzero(~alike)
        self._value = [least[place] for place in self._alike]
        same = [_COLUMNS[place] for place in self._alike]
        self.query = f"""SELECT {"".join(f"{_COLUMNS[place]}, " for place in self._varying)}
            chunk_ns, nullif(chunk_tokens, ?), {_unless(_KIND, kind)}, {_unless(same, f"json_array({', '.join(same)})")}
            FROM request WHERE {where} ORDER BY request_index, id"""
        self.parameters = (self._tokens, *self.kind, *self._value)

    def numbers(self, columns: list[tuple[int, ...]], others: tuple[str | None, ...]) -> Ints:
        """[NUMBERS, n] from the columns that vary, and from what a request has in place of the usual."""
        found = np.empty((len(NUMBERS), len(others)), np.int64)
        varying = np.fromiter(chain.from_iterable(columns), np.int64, len(columns) * len(others))
        found[self._varying] = varying.reshape(len(columns), len(others))
        found[self._alike] = np.array(self._value, np.int64)[:, None]
        for row, other in enumerate(others):
            if other is not None:
                found[self._alike, row] = orjson.loads(other)
        return found

    def chunk_tokens(self, blobs: tuple[bytes | None, ...]) -> Whole:
        """Of all requests end to end; None stands for the usual one."""
        if any(blob is not None for blob in blobs):
            return decode_all_tokens([self._tokens if blob is None else blob for blob in blobs])
        return np.tile(decode_all_tokens([self._tokens]), len(blobs))


def _unless(names: Sequence[str], otherwise: str) -> str:
    """NULL where each of these columns has the value that is given for it."""
    if not names:
        return "NULL"
    return f"CASE WHEN {' AND '.join(f'{name} = ?' for name in names)} THEN NULL ELSE {otherwise} END"


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
    types = {"warmup": np.bool_, **dict.fromkeys(_NAMES, np.str_)}
    shared: dict[str, Any] = {
        name: _of_kinds(np.array([kind[place] for kind in part.kinds], types.get(name, np.int64)), part.kind)
        for place, name in enumerate(_KIND)
    }
    return Requests(
        **dict(zip(NUMBERS, part.numbers, strict=True)),
        **shared,
        chunk_start=np.concatenate(([0], np.cumsum(part.chunks))).astype(np.int64),
        chunk_ns=part.chunk_ns,
        chunk_tokens=part.chunk_tokens,
    )


def _of_kinds(values: NDArray[Any], kind: Ints) -> NDArray[Any]:
    """The value of each request; one that all have in common takes no memory for each, and cannot be written to."""
    alike = len(values) > 0 and bool((values == values[0]).all())
    return np.broadcast_to(values[0], kind.shape) if alike else values[kind]
