"""Recorded traffic: when requests came and how long they were. `docs/traffic.md` has the formats and their sources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from redline.errors import SpecError
from redline.load import trace_formats
from redline.load.trace_formats import Row

__all__ = ["BLOCK_TOKENS", "Row", "Trace", "fitted", "read_trace"]

BLOCK_TOKENS = 512
"""Prompt tokens that one entry of Mooncake's `hash_ids` stands for."""

Recorded = Callable[[str], Sequence[Row]]
"""Reads one of redline's own runs."""


@dataclass(frozen=True)
class Trace:
    """Rows in the order of their times, which count from the first one. `notes` say what was left out."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    lines: int = field(default=0, compare=False)

    @property
    def has_sessions(self) -> bool:
        return any(row.turn > 0 for row in self.rows)

    def cut(self, *, speed: float, from_s: float, duration_s: float, requests: int = 0) -> list[Row]:
        """Rows to send within `duration_s`, with their times as they are to be sent: from 0, `speed` times as fast.

        Of a session that began before the cut nothing is sent: its first turns are not there to build upon.
        """
        until = from_s + duration_s * speed
        begun = {row.session for row in self.rows if row.session and row.turn == 0 and row.at_s >= from_s}
        kept = [
            replace(row, at_s=(row.at_s - from_s) / speed, think_s=row.think_s / speed)
            for row in self.rows
            if from_s <= row.at_s < until and (not row.session or row.session in begun)
        ]
        return kept[:requests] if requests else kept


def fitted(rows: Sequence[Row], *, limit: int, least: int) -> tuple[list[Row], int]:
    """Lengths that the model takes, and how many rows had to be changed. `limit` 0: nobody knows it.

    The prompt gives way first, down to half of the room; `least` is the shortest prompt that can be made.
    """
    found, changed = [], 0
    for row in rows:
        prompt, output = max(row.prompt_tokens, least), max(row.output_tokens, 1)
        if limit and prompt + output > limit:
            output = min(output, max(limit // 2, limit - prompt))
            prompt = max(limit - output, 1)
        changed += (prompt, output) != (row.prompt_tokens, row.output_tokens)
        found.append(replace(row, prompt_tokens=prompt, output_tokens=output))
    return found, changed


def read_trace(path: str, kind: str = "auto", recorded: Recorded | None = None) -> Trace:
    """The trace at `path` (a file, or `redline:RUN`). SpecError, with the line, for a file that cannot be used."""
    if recorded is not None and (kind == "redline" or path.startswith("redline:") or _is_results(path)):
        return _trace([(0, row) for row in recorded(path)], path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpecError(
            f"cannot read {path}: {error.strerror}", field="workload.path", fix="path: an existing, readable file"
        ) from error
    if kind == "auto":
        kind = trace_formats.recognise(data, path)
    return _trace(trace_formats.READERS[kind](data, path), path)


def _is_results(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def _trace(found: Sequence[tuple[int, Row]], path: str) -> Trace:
    rows = [row for _, row in found if row.output_tokens > 0 and row.prompt_tokens > 0]
    if not rows:
        raise SpecError("holds no request that was answered", file=path, field="workload.path")
    first = min(row.at_s for row in rows)
    rows = sorted((replace(row, at_s=row.at_s - first) for row in rows), key=lambda row: row.at_s)
    left_out = len(found) - len(rows)
    notes = [f"{left_out} requests of the trace have no prompt or no answer, and are left out"] if left_out else []
    return Trace(tuple(_with_turns(rows)), tuple(notes), len(found))


def _with_turns(rows: list[Row]) -> list[Row]:
    """Turns counted, and how long the user thought: from the end of the answer before, where that is known."""
    last: dict[str, Row] = {}
    turns: defaultdict[str, int] = defaultdict(int)
    found = []
    for row in rows:
        if not row.session:
            found.append(row)
            continue
        before = last.get(row.session)
        think_s = max(row.at_s - before.at_s - before.took_s, 0.0) if before else 0.0
        last[row.session] = row
        found.append(replace(row, turn=turns[row.session], think_s=think_s))
        turns[row.session] += 1
    return found
