"""One phase at one batch and context: timed with the profiler off, then recorded."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from redline.engines.endpoint import Endpoint
from redline.tune.profile.held import HeldBatch
from redline.tune.profile.recorder import Recorder

TIMED_S = 0.5
"""Decode steps are timed for at least so long, and at least as many as are recorded."""
PATIENCE_S = 300.0
FIRST_ID = 10
"""Below it lie special tokens in every vocabulary."""


@dataclass(frozen=True)
class Point:
    """`room`: tokens that an answer may have, beyond what is timed and recorded."""

    batch: int
    context: int
    room: int


@dataclass(frozen=True)
class Recorded:
    """`step_s` without the profiler, `profiled_s` with it; `context` while it was recorded."""

    step_s: float
    profiled_s: float
    context: float
    tokens_timed: float
    """Tokens in the KV cache of one sequence, at the middle of the timed part."""
    tokens_after: float
    """And at its end."""
    trace: Path | None


class Driver:
    """Asks one server for exactly what a phase needs. Prompts are random and never repeat: no cache of prefixes
    helps."""

    def __init__(
        self, endpoint: Endpoint, recorder: Recorder, vocab: int, headers: Mapping[str, str] = {}, seed: int = 0
    ) -> None:
        self._endpoint, self._recorder, self._headers = endpoint, recorder, headers
        self._vocab, self._random = vocab, random.Random(seed)

    def prompts(self, count: int, length: int) -> list[list[int]]:
        return [[self._random.randrange(FIRST_ID, self._vocab) for _ in range(length)] for _ in range(count)]

    def _held(self, count: int, length: int, answer: int) -> HeldBatch:
        return HeldBatch(self._endpoint, self.prompts(count, length), answer, self._headers)

    def warm_up(self, point: Point) -> None:
        """The shapes of this point, unrecorded: kernels load, graphs and caches fill; and the profiler itself."""
        with self._held(point.batch, point.context, 4) as held:
            held.wait(lambda counts: min(counts) >= 4, PATIENCE_S, may_end=True)

    def warm_profiler(self) -> None:
        """The first recording of a process takes seconds to begin; it is thrown away."""
        self._recorder.begin()
        with self._held(1, 16, 2) as held:
            held.wait(lambda counts: min(counts) >= 2, PATIENCE_S, may_end=True)
        self._recorder.forget(self._recorder.end())

    def decode(self, point: Point, steps: int, between: Callable[[], None] = lambda: None) -> Recorded:
        """All sequences of the batch together, one token each a step. `between` is called after the timed part, with
        the batch still running."""
        with self._held(point.batch, point.context, point.room) as held:
            held.wait(lambda counts: min(counts) >= 2, PATIENCE_S)
            step_s, middle = _timed(held, steps, point.room // 2)
            between()
            after = point.context + sum(held.tokens) / point.batch
            self._recorder.begin()
            began, first = time.monotonic(), held.tokens
            at = held.wait(lambda counts: _gained(counts, first) >= steps, PATIENCE_S)
            last = held.tokens
            profiled_s = (at - began) / max(1.0, _mean_gain(last, first))
            trace = self._recorder.end()
        context = point.context + (sum(first) + sum(last)) / (2 * len(first))
        return Recorded(step_s, profiled_s, context, point.context + middle, after, trace)

    def prefill(self, point: Point, repeats: int) -> Recorded:
        """All prompts of the batch at once, one token each: what follows the prompt is not this phase's."""
        times = [self._one_prefill(point) for _ in range(max(1, repeats))]
        self._recorder.begin()
        profiled = [self._one_prefill(point) for _ in range(max(1, repeats))]
        trace = self._recorder.end()
        length = float(point.context)
        return Recorded(min(times), min(profiled), length, length, length, trace)

    def _one_prefill(self, point: Point) -> float:
        held = self._held(point.batch, point.context, 1)
        began = time.monotonic()
        with held:
            return held.wait(lambda counts: min(counts) >= 1, PATIENCE_S, may_end=True) - began


def _timed(held: HeldBatch, steps: int, most: int) -> tuple[float, float]:
    """(seconds per step, tokens of an answer at the middle): from one arrival to another, `most` steps at the most."""
    first = held.tokens
    start = held.wait(lambda counts: sum(counts) > sum(first), PATIENCE_S)
    first = held.tokens

    def enough(counts: list[int]) -> bool:
        gained = _gained(counts, first)
        return gained >= steps and (time.monotonic() - start >= TIMED_S or gained >= most)

    held.wait(enough, PATIENCE_S)
    reached = held.tokens
    end = held.wait(lambda counts: sum(counts) > sum(reached), PATIENCE_S)
    last = held.tokens
    gain = _mean_gain(last, first)
    middle = (sum(first) + sum(last)) / (2 * len(first))
    return ((end - start) / gain if gain else math.nan), middle


def _gained(counts: list[int], first: list[int]) -> int:
    return min(now - then for now, then in zip(counts, first, strict=True))


def _mean_gain(last: list[int], first: list[int]) -> float:
    return (sum(last) - sum(first)) / len(first)
