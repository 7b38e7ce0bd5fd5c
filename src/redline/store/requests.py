"""Requests as columns: what `analyse` computes on. No SQL and no load generator in here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Names = NDArray[np.str_]
Whole = NDArray[np.integer[Any]]
"""Whole numbers in a type that may be narrower."""


@dataclass(frozen=True)
class Requests:
    """n requests in the order of their index; times in monotonic ns, 0 where it never happened.

    Chunks of all requests lie end to end: those of request i are `chunk_ns[chunk_start[i]:chunk_start[i + 1]]`, and
    `chunk_tokens` likewise. `chunk_start` has n + 1 entries.
    """

    index: Ints
    intended_ns: Ints
    sent_ns: Ints
    connected_ns: Ints
    first_byte_ns: Ints
    answer_first_ns: Ints
    finished_ns: Ints
    prompt_tokens: Ints
    cached_tokens: Ints
    asked_prompt_tokens: Ints
    output_tokens: Ints
    asked_output_tokens: Ints
    http_status: Ints
    shared_stamps: Ints
    session: Ints
    turn: Ints
    canary: Ints
    status: Names
    token_source: Names
    finish_reason: Names
    stamp: Names
    request_class: Names
    warmup: Bools
    chunk_start: Ints
    chunk_ns: Ints
    chunk_tokens: Whole

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def chunks(self) -> Ints:
        """How many chunks each request has."""
        return np.diff(self.chunk_start)

    @cached_property
    def delivered(self) -> Ints:
        """Tokens in the chunks of each request."""
        return self._each(np.add, self.chunk_tokens)

    @cached_property
    def earliest_ns(self) -> Ints:
        """The first arrival of a chunk of each request, whichever chunk it was; 0 without chunks."""
        return self._each(np.minimum, self.chunk_ns)

    @cached_property
    def latest_ns(self) -> Ints:
        """The last arrival of a chunk; 0 without chunks."""
        return self._each(np.maximum, self.chunk_ns)

    def _each(self, what: np.ufunc, column: Whole) -> Ints:
        """`what` over the chunks of each request."""
        found = np.zeros(len(self), np.int64)
        some = self.chunks > 0
        if some.any():
            found[some] = what.reduceat(column, self.chunk_start[:-1][some], dtype=np.int64)
        return found

    def pick(self, keep: Bools | Ints) -> Requests:
        """The requests that `keep` selects (mask or positions), with their chunks, in that order.

        A column is copied when it is first looked at: most users of a selection want two or three of them.
        """
        rows: Ints = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep.astype(np.int64, copy=False)
        in_order = len(rows) == 0 or bool((np.diff(rows) > 0).all())
        if in_order and len(rows) == len(self):
            return self
        picked = object.__new__(Requests)
        vars(picked)["_rows"] = _Rows(self, rows, in_order)
        return picked

    if not TYPE_CHECKING:  # mypy shall find misspelt columns

        def __getattr__(self, name: str) -> Any:
            """A column of a selection."""
            if name not in _COLUMNS or "_rows" not in vars(self):
                raise AttributeError(name)
            column = vars(self)[name] = vars(self)["_rows"].column(name)
            return column


_COLUMNS = frozenset(field.name for field in fields(Requests))


class _Rows:
    """Some rows of `whole`."""

    def __init__(self, whole: Requests, rows: Ints, in_order: bool) -> None:
        self.whole, self.in_order = whole, in_order
        together = in_order and len(rows) > 0 and int(rows[-1]) - int(rows[0]) + 1 == len(rows)
        self.rows: Any = slice(int(rows[0]), int(rows[-1]) + 1) if together else rows  # neighbours need no copy

    def column(self, name: str) -> NDArray[Any]:
        if name == "chunk_start":
            return np.concatenate(([0], np.cumsum(self.whole.chunks[self.rows]))).astype(np.int64)
        column: NDArray[Any] = getattr(self.whole, name)
        picked: NDArray[Any] = column[self._chunks() if name.startswith("chunk_") else self.rows]
        return picked

    def _chunks(self) -> Any:
        """Where the chunks of the rows are."""
        start, rows = self.whole.chunk_start, self.rows
        if isinstance(rows, slice):
            return slice(int(start[rows.start]), int(start[rows.stop]))
        counts = self.whole.chunks[rows]
        total = int(counts.sum())
        if self.in_order and total > start[-1] // 8:  # of many a mask takes a third of the time and of the memory
            kept = np.zeros(len(self.whole), np.bool_)
            kept[rows] = True
            return np.repeat(kept, self.whole.chunks)
        return np.repeat(start[:-1][rows] - (np.cumsum(counts) - counts), counts) + np.arange(total)


def narrow(values: NDArray[Any]) -> Whole:
    """The same numbers in the narrowest signed type that holds them."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    fitting = next(
        t for t in (np.int8, np.int16, np.int32, np.int64) if np.iinfo(t).min <= low and high <= np.iinfo(t).max
    )
    return values.astype(fitting, copy=False)
