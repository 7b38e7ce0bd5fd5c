"""A request on its way: the transformers server's exchange, with pieces put together until it is time to write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from redline.engines.hf_server.answer import Piece
from redline.engines.hf_server.exchange import Exchange, Receive, Send, Start
from redline.engines.hf_server.reply import Shape
from redline.runtime.answering import Answering
from redline.runtime.http.pace import Pace
from redline.runtime.request import TokenLogprob
from redline.runtime.tokenizer import Tokenizer


def abandon(answering: Answering) -> None:
    answering.leave()


class PacedExchange(Exchange):
    """`per_prompt` choices answer each prompt; `echoes` are texts to put in front of each choice."""

    def __init__(
        self,
        pace: Pace,
        shape: PromptShape,
        *,
        stream: bool,
        include_usage: bool,
        per_prompt: int = 1,
        echoes: Sequence[str] = (),
    ) -> None:
        super().__init__(abandon, shape, stream=stream, include_usage=include_usage)
        self.due_s = 0.0
        self.urgent = False
        self._pace = pace
        self._prompt_shape = shape
        self._per_prompt = per_prompt
        self._echoes = echoes
        self._opened: set[int] = set()

    def begin(self, starts: Sequence[Start]) -> None:
        super().begin(starts)
        for index, text in enumerate(self._echoes):
            self._pieces[index].append(Piece(index, text, 0, (), "", ""))

    def wake(self) -> None:
        self.urgent = False
        self._changed.set()

    def _take(self, piece: Piece | Exception) -> None:
        if isinstance(piece, Exception) or not self.stream:
            super()._take(piece)
            return
        number = piece.choice
        self._pieces[number].append(piece)
        self.counts[number] = piece.tokens
        if piece.finish:
            self._open -= 1
            self.urgent = True
        elif number not in self._opened:
            self.urgent = True
        self._pace.touch(self)

    def _written(self) -> bytes:
        """One event per choice with everything since the last one."""
        self._note_cached()
        out = []
        for number, pieces in enumerate(self._pieces):
            if not pieces:
                continue
            if number not in self._opened:
                self._opened.add(number)
                out.append(self.shape.opening(number))
            out.append(self.shape.chunk(joined(pieces), sum(self.counts)))
            pieces.clear()
        return b"".join(out)

    def _note_cached(self) -> None:
        self.shape.cached = sum(one.cached for one in self._jobs[:: self._per_prompt])

    async def collect(self, request: Any) -> Response:
        try:
            return await super().collect(request)
        finally:
            self._pace.forget(self)

    def whole(self) -> bytes:
        self._note_cached()
        for one in self._jobs:
            if one.prompt_logprobs is not None:
                self._prompt_shape.tell(one.prompt_logprobs)
        return super().whole()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        pace = self._pace

        async def timed(message: Any) -> None:
            began = time.perf_counter()
            await send(message)
            pace.wrote(time.perf_counter() - began)

        pace.open += 1
        try:
            await super().__call__(scope, receive, timed)
        finally:
            pace.open -= 1
            pace.forget(self)


def joined(pieces: Sequence[Piece]) -> Piece:
    last = pieces[-1]
    if len(pieces) == 1:
        return last
    logprobs = tuple(entry for piece in pieces for entry in piece.logprobs) if any(p.logprobs for p in pieces) else ()
    return Piece(last.choice, "".join([piece.text for piece in pieces]), last.tokens, logprobs, last.finish, last.stop)


class PromptShape(Shape):
    """Adds the prompt's log-probabilities, as vLLM has them: by choice for completions, once for a chat."""

    def __init__(self, tokenizer: Tokenizer, **rest: Any) -> None:
        super().__init__(**rest)
        self._tokenizer = tokenizer
        self.told: list[list[dict[str, Any] | None]] = []

    def tell(self, logprobs: Sequence[TokenLogprob | None]) -> None:
        """Of the next choice's prompt."""
        self.told.append([None if one is None else self._entry(one) for one in logprobs])

    def _entry(self, one: TokenLogprob) -> dict[str, Any]:
        ranks = {token: rank for rank, (token, _) in enumerate(one.top, 1)}
        listed = {**dict(one.top), one.token: one.logprob}
        return {
            str(token): {"logprob": value, "rank": ranks.get(token), "decoded_token": self._tokenizer.decode([token])}
            for token, value in listed.items()
        }

    def body(self, choices: Sequence[Sequence[Piece]], tokens: int) -> dict[str, Any]:
        body = super().body(choices, tokens)
        if self.told and self.chat:
            body["prompt_logprobs"] = self.told[0]
        elif self.told:
            for choice, told in zip(body["choices"], self.told, strict=True):
                choice["prompt_logprobs"] = told
        return body
