"""Requests made by hand or by a small simulated server, for tests of what is computed from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from redline.store.requests import Requests

MS = 1_000_000
S = 1_000_000_000


@dataclass
class Row:
    """One request, times in ms from an origin of one second (0 means never in `Requests`)."""

    intended: float = 0.0
    sent: float | None = None
    chunks: list[float] = field(default_factory=list)
    tokens: list[int] | None = None
    finished: float | None = None
    answer_first: float | None = None
    status: str = "ok"
    warmup: bool = False
    prompt_tokens: int = 10
    output_tokens: int | None = None
    asked_output_tokens: int | None = None
    asked_prompt_tokens: int = 10
    token_source: str = "usage"
    stamp: str = "kernel"
    shared_stamps: int = 0
    cached_tokens: int = 0
    finish_reason: str = "length"
    session: int = -1
    turn: int = -1
    canary: int = -1
    request_class: str = ""


def ns(ms: float | None) -> int:
    return 0 if ms is None else round(S + ms * MS)


def requests_of(*rows: Row) -> Requests:
    tokens = [row.tokens if row.tokens is not None else [1] * len(row.chunks) for row in rows]
    lengths = [len(row.chunks) for row in rows]
    output = [sum(t) if row.output_tokens is None else row.output_tokens for row, t in zip(rows, tokens, strict=True)]

    asked = [
        o if row.asked_output_tokens is None else row.asked_output_tokens for row, o in zip(rows, output, strict=True)
    ]

    def ints(values: list[Any]) -> Any:
        return np.array(values, dtype=np.int64)

    def names(values: list[str]) -> Any:
        return np.array(values, dtype=np.str_)

    def finished(row: Row) -> float | None:
        return row.finished if row.finished is not None else (row.chunks[-1] if row.chunks else None)

    def first(row: Row) -> float | None:
        return row.answer_first if row.answer_first is not None else (row.chunks[0] if row.chunks else None)

    return Requests(
        index=ints(list(range(len(rows)))),
        intended_ns=ints([ns(row.intended) for row in rows]),
        sent_ns=ints([ns(row.intended if row.sent is None else row.sent) for row in rows]),
        connected_ns=ints([ns(row.intended) for row in rows]),
        first_byte_ns=ints([ns(row.chunks[0] if row.chunks else None) for row in rows]),
        answer_first_ns=ints([ns(first(row)) for row in rows]),
        finished_ns=ints([ns(finished(row)) for row in rows]),
        prompt_tokens=ints([row.prompt_tokens for row in rows]),
        cached_tokens=ints([row.cached_tokens for row in rows]),
        asked_prompt_tokens=ints([row.asked_prompt_tokens for row in rows]),
        output_tokens=ints(output),
        asked_output_tokens=ints(asked),
        http_status=ints([200 if row.status == "ok" else 0 for row in rows]),
        shared_stamps=ints([row.shared_stamps for row in rows]),
        session=ints([row.session for row in rows]),
        turn=ints([row.turn for row in rows]),
        canary=ints([row.canary for row in rows]),
        request_class=names([row.request_class for row in rows]),
        status=names([row.status for row in rows]),
        token_source=names([row.token_source for row in rows]),
        finish_reason=names([row.finish_reason for row in rows]),
        stamp=names([row.stamp for row in rows]),
        warmup=np.array([row.warmup for row in rows], dtype=np.bool_),
        chunk_start=ints([0, *np.cumsum(lengths).tolist()]),
        chunk_ns=ints([ns(at) for row in rows for at in row.chunks]),
        chunk_tokens=ints([count for chunk in tokens for count in chunk]),
    )  # fmt: skip


def closed_loop(
    clients: int,
    *,
    duration_ms: float = 10_000.0,
    ttft_ms: float = 40.0,
    itl_ms: float = 10.0,
    output_tokens: int = 32,
    noise: float = 0.1,
    fail: float = 0.0,
    per_chunk: int = 1,
    drain_ms: float = 1e9,
    seed: int = 0,
) -> tuple[Requests, tuple[int, int]]:
    """`clients` clients of a server with log-normal service times, and the point's (measured_from, ended).

    Nothing is sent after `duration_ms`; what is in flight `drain_ms` later is cut off. A failed request ends half way.
    """
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(clients):
        now = 0.0
        while now < duration_ms:
            first = now + ttft_ms * rng.lognormal(0, noise)
            gaps = itl_ms * per_chunk * rng.lognormal(0, noise, max(output_tokens // per_chunk - 1, 0))
            at = (first + np.concatenate(([0.0], np.cumsum(gaps)))).tolist()
            tokens = [per_chunk] * len(at)
            row = Row(now, chunks=at, tokens=tokens, asked_output_tokens=sum(tokens))
            if rng.random() < fail:
                row.status, half = "reset", max(len(at) // 2, 1)
                row.finished, row.chunks, row.tokens = at[half - 1], at[:half], tokens[:half]
            until = duration_ms + drain_ms
            end = row.finished if row.finished is not None else row.chunks[-1]
            if end > until:
                keep = [t for t in row.chunks if t <= until]
                row.status, row.finished, row.chunks, row.tokens = "cancelled", until, keep, [per_chunk] * len(keep)
            rows.append(row)
            now = max(end, now) + 0.2
    rows.sort(key=lambda row: row.intended)
    made = requests_of(*rows)
    return made, (S, int(made.finished_ns.max()))
