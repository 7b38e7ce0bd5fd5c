"""Streams with a step time and pauses that are known, for tests of what explain makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from redline.load.record import RequestRecord, TokenSource
from redline.store.from_records import columns_of
from redline.store.requests import Requests

MS = 1_000_000
STEP_NS = 10 * MS

Pause = tuple[int, int]


def requests(
    seconds: float,
    streams: int = 4,
    *,
    pauses: Sequence[Pause] = (),
    held: Sequence[Pause] = (),
    tokens: int = 50,
    wait_ns: int = 30 * MS,
    jitter: float = 0.0,
    one_stream: bool = False,
    wait_of: Callable[[int], int] | None = None,
) -> Requests:
    """Closed loop from t = 0. In `pauses` no step ends; tokens made in `held` all come at its end. With `one_stream`
    only the first stream knows them."""
    random = np.random.default_rng(1)
    found = []
    for stream in range(streams):
        now, index = MS + stream * 151 * MS, stream
        mine = not one_stream or stream == 0
        while now < seconds * 1e9:
            wait = wait_of(index) if wait_of else wait_ns
            record = RequestRecord(index=index, intended_ns=now, sent_ns=now + MS // 10)
            at = _after(now + wait, pauses if mine else ())
            times = []
            for _ in range(tokens):
                times.append(_arrival(at, held if mine else ()))
                at = _after(at + round(STEP_NS * (1 + jitter * float(random.random()))), pauses if mine else ())
            record.chunk_ns, record.chunk_tokens = times, [1] * tokens
            record.first_byte_ns = record.answer_first_ns = times[0]
            record.finished_ns = times[-1]
            record.prompt_tokens, record.output_tokens, record.token_source = 64, tokens, TokenSource.USAGE
            found.append(record)
            now, index = times[-1] + MS, index + streams
    return columns_of(sorted(found, key=lambda one: one.index))


def _after(at: int, pauses: Sequence[Pause]) -> int:
    """A step that would end in a pause ends that much later."""
    for began, ended in pauses:
        if began <= at < ended:
            return ended + (at - began) % STEP_NS
    return at


def _arrival(at: int, held: Sequence[Pause]) -> int:
    return next((ended for began, ended in held if began <= at < ended), at)


def lumps(random: np.random.Generator, size: int, count: int, length: int) -> np.ndarray:
    """[size] of 0 and 1, in stretches of about `length` at random places."""
    found = np.zeros(size)
    for begin in random.integers(0, size, count):
        found[(begin + np.arange(1 + random.geometric(1 / length))) % size] = 1.0
    return found
