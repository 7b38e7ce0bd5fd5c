"""A runner with no model: the next token is a checksum of all tokens before it, read back through the pages.

What is in the pages must be the request's own history at every position, whoever wrote it. So sharing, preemption,
running ahead and drafts cannot go wrong without a test noticing it.
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from redline.runtime.request import Finish, Output, Request, Sampling, TokenLogprob
from redline.runtime.scheduler import Scheduler
from redline.runtime.step import Chunk, Launched, Limits, RunnerBroken, RunnerOutOfMemory, Sampled, Step

VOCAB = 50


def next_token(history: Sequence[int]) -> int:
    return crc32(array("I", history).tobytes()) % VOCAB


def alone(prompt: Sequence[int], sampling: Sampling, max_model_len: int = 1 << 30) -> tuple[list[int], Finish]:
    """The answer as it must be, whatever else is going on."""
    tokens, answer = list(prompt), list[int]()
    while True:
        token = next_token(tokens)
        tokens.append(token)
        answer.append(token)
        if token in sampling.stop_ids and len(answer) >= sampling.min_tokens:
            return answer, Finish.STOP
        if len(answer) >= sampling.max_tokens or len(tokens) >= max_model_len:
            return answer, Finish.LENGTH


def limits(**changes: int) -> Limits:
    return Limits(
        pages=64, page_size=4, max_seqs=8, max_batched_tokens=32, max_model_len=512, vocab_size=VOCAB
    )._replace(**changes)


@dataclass
class Heard:
    """A sink that remembers."""

    outputs: list[Output] = field(default_factory=list)

    def __call__(self, output: Output) -> None:
        assert self.finish is None, "an output came after the last one"
        self.outputs.append(output)

    @property
    def tokens(self) -> list[int]:
        return [token for output in self.outputs for token in output.tokens]

    @property
    def finish(self) -> Finish | None:
        return self.outputs[-1].finish if self.outputs else None

    @property
    def error(self) -> str:
        return self.outputs[-1].error if self.outputs else ""


_ids = itertools.count()


def ask(prompt: Sequence[int], *, priority: int = 0, id: str = "", **sampling: Any) -> tuple[Request, Heard]:
    heard = Heard()
    request = Request(
        id=id or f"r{next(_ids)}",
        tokens=list(prompt),
        sampling=Sampling(**sampling),
        sink=heard,
        priority=priority,
    )
    return request, heard


@dataclass
class FakeLaunched:
    step: Step
    sampled: list[Sampled]
    pages: dict[Request, set[int]]


class FakeRunner:
    """Computes at launch, as a device does that works its queue off in order, and tells at collect."""

    def __init__(
        self, limits: Limits, *, memory: int = 1 << 30, seconds: Callable[[Step], float] | None = None
    ) -> None:
        self.limits = limits
        self.memory = memory
        self.seconds = seconds
        self.kv = array("I", [0]) * (limits.pages * limits.page_size)
        self.device: dict[str, list[int]] = {}
        """All tokens of a request as the device knows them."""
        self.in_flight: list[FakeLaunched] = []
        self.released: list[Request] = []
        self.steps: list[Step] = []
        self.nan: set[str] = set()
        self.broken_at = 1 << 30
        self.closed = False
        self.pending_seen = 0

    def launch(self, step: Step) -> FakeLaunched:
        if step.tokens > self.memory:
            raise RunnerOutOfMemory(f"{step.tokens} tokens, room for {self.memory}")
        self.check(step)
        launched = FakeLaunched(step, [], {})
        for chunk in step.chunks:
            self.run(chunk, launched)
        self.in_flight.append(launched)
        self.steps.append(step)
        return launched

    def check(self, step: Step) -> None:
        lengths = [chunk.length for chunk in step.chunks]
        assert sum(lengths) == step.tokens <= self.limits.max_batched_tokens
        assert 0 < len(lengths) <= self.limits.max_seqs
        rows = [chunk.request.row for chunk in step.chunks]
        assert len({*rows}) == len(rows), "a row is used twice"
        assert all(0 <= row < self.limits.max_seqs for row in rows)

    def run(self, chunk: Chunk, launched: FakeLaunched) -> None:
        request, start, length, samples, draft = chunk
        size = self.limits.page_size
        known, pages = request.tokens, request.pages
        own = self.device.setdefault(request.id, [])
        own[: len(known)] = known
        if start == 0:
            del own[len(known) :]
        unseen = max(0, start + length - len(draft) - len(known))
        assert unseen <= request.pending, "a token is asked for that nobody knows"
        assert not (unseen and (draft or request.waits_for_host)), "it ran ahead and must not"
        self.pending_seen = max(self.pending_seen, unseen)
        fed = [*own[start : start + length - len(draft)], *draft]
        assert len(fed) == length
        self.owns(request, pages[start // size : (start + length - 1) // size + 1])
        for position, token in enumerate(fed, start):
            self.kv[pages[position // size] * size + position % size] = token
        history = self.read(request, start + length)
        assert history == [*own[: start + length - len(draft)], *draft], "the pages hold another history"
        launched.pages[request] = {*pages[: (start + length - 1) // size + 1]}
        logprobs = self.prompt_logprobs(chunk)
        if not samples:
            if logprobs:
                launched.sampled.append(Sampled(request, [], prompt_logprobs=logprobs))
            return
        new = self.choose(history, draft)
        del own[start + length - len(draft) :]
        own += new
        fault = "nan" if request.id in self.nan else ""
        told = [TokenLogprob(token, -1.0, ()) for token in new] if request.sampling.logprobs is not None else []
        launched.sampled.append(Sampled(request, [] if fault else new, told, logprobs, fault))

    def owns(self, request: Request, written: list[int]) -> None:
        assert 0 not in written
        for launched in self.in_flight:
            for other, pages in launched.pages.items():
                assert other is request or not pages & {*written}, "a page was reused while a step is in flight"

    def read(self, request: Request, upto: int) -> list[int]:
        size = self.limits.page_size
        history = array("I")
        for page in request.pages[: -(-upto // size)]:
            history += self.kv[page * size : (page + 1) * size]
        return history[:upto].tolist()

    def choose(self, history: list[int], draft: tuple[int, ...]) -> list[int]:
        new = []
        before = len(history) - len(draft)
        for i in range(len(draft) + 1):
            new.append(next_token(history[: before + i]))
            if i < len(draft) and draft[i] != new[-1]:
                break
        return new

    def prompt_logprobs(self, chunk: Chunk) -> list[TokenLogprob | None]:
        request, start, length, _, _ = chunk
        if request.sampling.prompt_logprobs is None:
            return []
        places = range(start, min(start + length, request.prompt_len))
        return [TokenLogprob(request.tokens[i], -2.0, ()) if i else None for i in places]

    def collect(self, launched: Launched) -> list[Sampled]:
        assert isinstance(launched, FakeLaunched)
        if launched.step.number >= self.broken_at:
            raise RunnerBroken("an illegal memory access was encountered")
        assert self.in_flight.pop(0) is launched, "steps must be collected in order"
        return launched.sampled

    def release(self, request: Request) -> None:
        assert request.row >= 0
        assert all(request not in launched.pages for launched in self.in_flight)
        self.device.pop(request.id, None)
        self.released.append(request)

    def resolved(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        self.closed = True


class Drive:
    """The engine's loop without its thread: one turn at a time, books checked after each."""

    def __init__(self, limits: Limits, *, run_ahead: int = 0, checked: bool = True, **options: Any) -> None:
        self.runner = FakeRunner(limits)
        self.run_ahead = run_ahead
        self.checked = checked
        self.scheduler = Scheduler(limits, run_ahead=run_ahead, released=self.runner.release, **options)
        self.in_flight: deque[FakeLaunched] = deque()
        self.now = 0.0

    def add(self, prompt: Sequence[int], **options: Any) -> tuple[Request, Heard]:
        request, heard = ask(prompt, **options)
        self.scheduler.add(request)
        return request, heard

    def tell(self) -> None:
        for request, output in self.scheduler.take_events():
            request.sink(output)

    def abort(self, request: Request) -> None:
        self.scheduler.abort(request.id)
        self.tell()

    def turn(self) -> bool:
        """False when nothing was left to do."""
        step = self.scheduler.schedule()
        if step is not None:
            try:
                self.in_flight.append(self.runner.launch(step))
                self.scheduler.launched(step)
            except RunnerOutOfMemory:
                self.scheduler.out_of_memory(step)
        if self.in_flight and (step is None or len(self.in_flight) > self.run_ahead):
            launched = self.in_flight.popleft()
            elapsed = 0.0 if self.runner.seconds is None else self.runner.seconds(launched.step)
            self.scheduler.update(self.runner.collect(launched), launched.step, elapsed)
        self.tell()
        if self.checked:
            self.check()
        return step is not None or bool(self.in_flight)

    def finish(self, most: int = 20_000) -> None:
        for _ in range(most):
            if not self.turn() and not self.scheduler.unfinished:
                return
        raise AssertionError(f"{self.scheduler.unfinished} requests never ended")

    def check(self) -> None:
        roster = self.scheduler.roster
        here = [*roster.decoding, *roster.prefilling, *roster.draining]
        roster.pool.check([request.pages for request in here])
        rows = [request.row for request in here]
        assert len({*rows}) == len(rows)
        assert len(rows) <= self.scheduler.limits.max_seqs
        for request in {*roster.by_id.values()} - {*here}:
            assert (request.pages, request.computed, request.row, request.books.room) == ([], 0, -1, 0)
        for request in here:
            assert request.books.room == len(request.pages) * self.scheduler.limits.page_size

    def check_empty(self) -> None:
        """Nothing is held any more."""
        pool = self.scheduler.roster.pool
        pool.check([])
        assert pool.free == pool.usable
        assert not self.scheduler.unfinished
        assert not len(self.scheduler.roster.waiting)
        assert not self.scheduler.roster.draining
        assert not self.scheduler.roster._coming
        assert not self.runner.device
