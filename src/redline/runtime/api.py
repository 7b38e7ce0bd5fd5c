"""The engine inside a Python process.

from redline.runtime.api import LLM, SamplingParams

with LLM("bundled:tiny") as llm:
    for answer in llm.generate(["Once upon", "def main("], SamplingParams(max_tokens=32, temperature=0)):
        print(answer.text)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from redline.engines.hf_server.answer import Piece
from redline.engines.hf_server.fault import ApiError
from redline.runtime.answering import Answering
from redline.runtime.build import Progress, build, make_engine
from redline.runtime.config import EngineConfig
from redline.runtime.engine import Engine
from redline.runtime.inbox import Inbox
from redline.runtime.params import Constraint as Constraint
from redline.runtime.params import SamplingParams as SamplingParams
from redline.runtime.request import Matcher, Output, Sink, TokenLogprob

__all__ = ["LLM", "Answer", "Choice", "Constraint", "SamplingParams", "build"]

Prompt = str | list[int]


@dataclass
class Choice:
    """`finish` is `stop` or `length`; `stop` the stop string that ended it. `tokens` include what ended it."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str = ""
    stop: str = ""


@dataclass
class Answer:
    """To one prompt: `choices` has `n` of them, and the shorthands are the first's."""

    prompt_tokens: list[int]
    choices: list[Choice]
    cached: int = 0
    """Prompt tokens that the prefix cache had."""
    prompt_logprobs: list[TokenLogprob | None] | None = None

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def tokens(self) -> list[int]:
        return self.choices[0].tokens

    @property
    def finish(self) -> str:
        return self.choices[0].finish


class LLM:
    """A loaded model. `model`: a folder, `bundled:NAME`, `shape:NAME` or a hub id that is in the local cache.

    `options` are the fields of `EngineConfig`. Methods may be called from several threads.
    """

    def __init__(self, model: str | Path, *, progress: Progress = lambda line: None, **options: Any) -> None:
        # here, since the server finds its folder itself, and their models of data take a tenth of its start-up
        from redline.spec.model import ModelSpec
        from redline.spec.resolve import resolve_model

        found = resolve_model(ModelSpec(id=str(model)))
        if found.path is None:
            raise ValueError(f"{model} is not on this machine: download it first (hf download {found.hub_id})")
        if found.random_weights:
            options.setdefault("load_format", "random")
        options.setdefault("tokenizer", found.tokenizer_path)
        config = EngineConfig(model=found.path, **options)
        self.engine: Engine = make_engine(build(config, progress), config)
        self.engine.loop.start()

    @classmethod
    def around(cls, engine: Engine) -> LLM:
        """An engine that runs already; `close` ends it."""
        made = cls.__new__(cls)
        made.engine = engine
        return made

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.engine.loop.stop()

    def generate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[Answer]:
        """Answers in the order of the prompts. ValueError for what cannot be; RuntimeError when the engine fails."""
        listed = _prompts(prompts)
        each = [params or SamplingParams()] * len(listed) if not isinstance(params, Sequence) else list(params)
        if len(each) != len(listed):
            raise ValueError(f"{len(listed)} prompts and {len(each)} params")
        plans = [self._plan(prompt, one) for prompt, one in zip(listed, each, strict=True)]
        inbox: Deliveries = SimpleQueue()
        gathers = [_Gather(self.engine, prompt, one) for (prompt, _), one in zip(plans, each, strict=True)]
        try:
            for gather, (_, matchers) in zip(gathers, plans, strict=True):
                gather.begin(partial(_through, inbox, gather), matchers)
            left = len(gathers)
            while left:
                gather, take, output = self._next(inbox)
                was_open = gather.open > 0
                take(output)
                gather.check()
                left -= was_open and not gather.open
        finally:
            for gather in gathers:
                gather.leave()
        return [gather.answer() for gather in gathers]

    def _next(self, inbox: Deliveries) -> tuple[_Gather, Callable[[Output], None], Output]:
        while True:
            try:
                return inbox.get(timeout=1.0)
            except Empty:
                if self.engine.loop.failure:
                    raise RuntimeError(f"the engine failed: {self.engine.loop.failure}") from None

    async def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> AsyncGenerator[Piece, None]:
        """Pieces as they come: `choice`, `text`, `tokens` so far, `logprobs`, and at the end `finish`."""
        params = params or SamplingParams()
        ids, matchers = await asyncio.to_thread(self._plan, prompt, params)
        pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        gather = _Gather(self.engine, ids, params, pieces.put_nowait)
        try:
            gather.begin(Inbox(asyncio.get_running_loop()).sink, matchers)
            while gather.open or not pieces.empty():
                piece = await pieces.get()
                gather.check()
                if isinstance(piece, Piece):
                    yield piece
        finally:
            gather.leave()

    def _plan(self, prompt: Prompt, params: SamplingParams) -> tuple[list[int], Callable[[], Matcher] | None]:
        try:
            params.check(self.engine.limits.vocab_size)
            ids = self.engine.encode(prompt)
            self.engine.sampling(params, len(ids), 0)
            return ids, self.engine.matchers(params)
        except ApiError as error:
            raise ValueError(str(error)) from error


class _Gather:
    """The choices of one prompt while they are being answered."""

    def __init__(
        self,
        engine: Engine,
        prompt: list[int],
        params: SamplingParams,
        show: Callable[[Piece | Exception], None] = lambda piece: None,
    ) -> None:
        self._engine = engine
        self._prompt = prompt
        self._params = params
        self._show = show
        self._choices = [Choice() for _ in range(params.n)]
        self._answers: list[Answering] = []
        self._error: Exception | None = None
        self.open = params.n

    def begin(
        self, through: Callable[[Callable[[Output], None]], Sink], matchers: Callable[[], Matcher] | None
    ) -> None:
        for index in range(self._params.n):
            answering = Answering(self._engine, index, self._prompt, self._params, self._emit)
            self._answers.append(answering)
            sink = through(partial(self._take, answering, self._choices[index]))
            sampling = self._engine.sampling(self._params, len(self._prompt), index)
            matcher = matchers() if matchers else None
            try:
                self._engine.submit(self._prompt, sampling, answering, sink, matcher=matcher)
            except ApiError as error:
                raise (ValueError if error.status < 500 else RuntimeError)(str(error)) from error

    def _take(self, answering: Answering, choice: Choice, output: Output) -> None:
        if not answering.closed:
            choice.tokens.extend(output.tokens)
            answering.take(output)
            del choice.tokens[answering.tokens :]

    def _emit(self, piece: Piece | Exception) -> None:
        if isinstance(piece, Exception):
            self._error, self.open = piece, 0
        else:
            choice = self._choices[piece.choice]
            choice.text += piece.text
            choice.logprobs.extend(piece.logprobs)
            choice.finish, choice.stop = piece.finish, piece.stop
            self.open -= bool(piece.finish)
        self._show(piece)

    def check(self) -> None:
        if self._error is not None:
            raise RuntimeError(str(self._error)) from self._error

    def leave(self) -> None:
        for answering in self._answers:
            answering.leave()

    def answer(self) -> Answer:
        first = self._answers[0]
        told = None if first.prompt_logprobs is None else list(first.prompt_logprobs)
        return Answer(self._prompt, self._choices, first.cached, told)


Deliveries = SimpleQueue[tuple[_Gather, Callable[[Output], None], Output]]


def _through(inbox: Deliveries, gather: _Gather, take: Callable[[Output], None]) -> Sink:
    return lambda output: inbox.put((gather, take, output))


def _prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    listed = list(prompts)
    if listed and all(isinstance(one, int) for one in listed):
        return [listed]  # type: ignore[list-item]
    return listed  # type: ignore[return-value]
