"""A large load point, read by several processes at once: making Python's objects of a million rows takes one
seconds.

    python -m redline.store.together FILE POINT LOW HIGH FD     started by redline only

Each process reads the requests with an index in [LOW, HIGH), says on its standard output how many it found, is told on
its standard input where to put them, and writes them into memory that all share (FD). What comes out is what one
process would have read.
"""

from __future__ import annotations

import gc
import mmap
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from redline.store.columns import BEYOND, FIRST, NUMBERS, Part, joined, read_parts, requests_of
from redline.store.file import open_readonly
from redline.store.requests import Requests

FEWEST, EACH = 200_000, 50_000
"""Requests of a point that is worth it, and of each process: reading them takes it as long as its start."""


def read_point(db: sqlite3.Connection, path: Path, point_id: int) -> Requests:
    """All requests of a load point, in the order of their index. `path` is the file that `db` has open."""
    count = _finished(db, point_id)
    processes = min(_cores(), count // EACH)
    part = None
    if count >= FEWEST and processes > 1:
        edges = _bounds(db, point_id, processes, count // processes)
        with suppress(OSError, orjson.JSONDecodeError):  # what is wrong with the file shows when it is read again
            part = _read_together(path, point_id, edges)
    return requests_of(part or joined(read_parts(db, point_id)))


def _cores() -> int:
    """1 where there is no memory to share without a place in the file system for it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "memfd_create") and hasattr(os, "sched_getaffinity") else 1


def _finished(db: sqlite3.Connection, point_id: int) -> int:
    """Requests of a load point to which none will be added; 0 while it goes on: processes would see different ends."""
    sql = "SELECT count(*) FROM request JOIN point ON point.id = point_id WHERE point_id = ? AND ended_ns IS NOT NULL"
    return int(db.execute(sql, (point_id,)).fetchone()[0])


def _bounds(db: sqlite3.Connection, point_id: int, parts: int, each: int) -> list[int]:
    """Edges of `parts` ranges of the index with about `each` requests in them."""
    sql = """SELECT request_index FROM request WHERE point_id = ? AND request_index >= ?
        ORDER BY request_index LIMIT 1 OFFSET ?"""
    edges = [FIRST]
    for _ in range(parts - 1):
        found = db.execute(sql, (point_id, edges[-1], each)).fetchone()
        edges.append(int(found[0]) if found else BEYOND)
    return [*edges, BEYOND]


class _Shared:
    """Columns of n requests with m chunks in the memory behind `fd`."""

    def __init__(self, fd: int, requests: int, chunks: int, tokens: str) -> None:
        layout = (("<i8", (len(NUMBERS), requests)), ("<i8", (requests,)), ("<i8", (requests,)), ("<i8", (chunks,)))
        size = sum(8 * int(np.prod(shape)) for _, shape in layout) + np.dtype(tokens).itemsize * chunks
        if os.fstat(fd).st_size == 0:
            os.ftruncate(fd, size)
        memory, at = mmap.mmap(fd, size), 0
        self.arrays: list[Any] = []
        for kind, shape in (*layout, (tokens, (chunks,))):
            array = np.frombuffer(memory, kind, int(np.prod(shape)), at).reshape(shape)
            at += array.nbytes
            self.arrays.append(array)

    def take(self, parts: list[Part], row: int, chunk: int) -> None:
        """All of `parts` out of the list, one after the other, from request `row` and chunk `chunk` on."""
        while parts:
            part = parts.pop(0)
            rows, chunks = slice(row, row + len(part.kind)), slice(chunk, chunk + len(part.chunk_ns))
            for array, column, place in zip(self.arrays, part.arrays, (rows, rows, rows, chunks, chunks), strict=True):
                array[..., place] = column
            row, chunk = rows.stop, chunks.stop


def _read_together(path: Path, point_id: int, edges: list[int]) -> Part | None:
    """None, OSError or JSONDecodeError when a process failed."""
    fd = os.memfd_create("redline-requests")
    started: list[subprocess.Popen[bytes]] = []
    try:
        for low, high in pairwise(edges):
            command = [sys.executable, "-m", __name__, str(path), str(point_id), str(low), str(high), str(fd)]
            started.append(
                subprocess.Popen(
                    command, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            )
        return _gather(started, fd)
    finally:
        os.close(fd)
        for process in started:
            process.kill()
            with suppress(OSError):
                process.communicate()


def _gather(started: list[subprocess.Popen[bytes]], fd: int) -> Part | None:
    found = [orjson.loads(process.stdout.readline()) for process in started if process.stdout]
    rows = np.cumsum([0, *(one["requests"] for one in found)]).tolist()
    chunks = np.cumsum([0, *(one["chunks"] for one in found)]).tolist()
    tokens = max((one["tokens"] for one in found), key=lambda kind: np.dtype(kind).itemsize)
    shared = _Shared(fd, rows[-1], chunks[-1], tokens)
    for process, row, chunk in zip(started, rows[:-1], chunks[:-1], strict=True):
        assert process.stdin
        told = {"requests": rows[-1], "chunks": chunks[-1], "tokens": tokens, "row": row, "chunk": chunk}
        process.stdin.write(orjson.dumps(told) + b"\n")
        process.stdin.flush()
    ended = [process.wait() for process in started]
    if any(ended):
        return None
    numbers, kind, counts, chunk_ns, chunk_tokens = shared.arrays
    kinds: list[list[Any]] = []
    for one, row, end in zip(found, rows[:-1], rows[1:], strict=True):
        kinds += [own for own in one["kinds"] if own not in kinds]
        kind[row:end] = np.array([kinds.index(own) for own in one["kinds"]])[kind[row:end]]
    return Part(numbers, kind, kinds, counts, chunk_ns, chunk_tokens)


def main() -> None:
    gc.disable()  # looking for cycles among a million new tuples, of which none is part of one, finds nothing
    path, point_id, low, high, fd = sys.argv[1:]
    with closing(open_readonly(Path(path))) as db:
        parts = list(read_parts(db, int(point_id), int(low), int(high)))
    about = {
        "requests": sum(len(part.kind) for part in parts),
        "chunks": sum(len(part.chunk_ns) for part in parts),
        "kinds": parts[0].kinds if parts else [],
        "tokens": np.result_type("i1", *(part.chunk_tokens for part in parts)).str,
    }
    sys.stdout.buffer.write(orjson.dumps(about) + b"\n")
    sys.stdout.buffer.flush()
    if told := sys.stdin.readline():  # else redline is gone
        where = orjson.loads(told)
        row, chunk = where.pop("row"), where.pop("chunk")
        _Shared(int(fd), **where).take(parts, row, chunk)


if __name__ == "__main__":
    main()
