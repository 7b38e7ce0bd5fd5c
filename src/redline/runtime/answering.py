"""One answer on its way: the engine's tokens in, pieces of text out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from redline.engines.hf_server.answer import Answer, Piece
from redline.engines.hf_server.fault import ApiError
from redline.runtime.params import SamplingParams
from redline.runtime.request import Finish, Output, Request, TokenLogprob

if TYPE_CHECKING:
    from redline.runtime.engine import Engine

Emit = Callable[[Piece | Exception], None]


class Answering:
    """Ends with the engine's finish, or with a stop string, which the engine does not know: then it aborts.

    All methods belong to one thread, the reader's; `request` is the engine's.
    """

    __slots__ = ("_abort", "_answer", "_emit", "cached", "closed", "prompt_logprobs", "request")

    def __init__(
        self,
        engine: Engine,
        index: int,
        prompt: Sequence[int],
        params: SamplingParams,
        emit: Emit,
        *,
        per_token: bool = False,
    ) -> None:
        """`emit` gets pieces that carry `index`; with `per_token` one for every token."""
        self.request: Request | None = None
        self.closed = False
        self.cached = 0
        self.prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
        reader, silent = engine.tokenizer.reader(prompt), frozenset(params.stop_token_ids)
        self._answer = Answer(index, reader, params.stops, per_token, emit, silent)
        self._emit = emit
        self._abort = engine.loop.abort

    @property
    def tokens(self) -> int:
        """Of the answer so far, up to the end of a stop string."""
        return self._answer.tokens

    @property
    def finish(self) -> str:
        """`stop`, `length`, or '' while it goes on and after a failure."""
        return self._answer.finish

    def take(self, output: Output) -> None:
        """What a closed answer still gets is dropped: the engine may be a step ahead."""
        if self.closed:
            return
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        self.cached = max(self.cached, output.cached)
        finish = output.finish
        if finish is Finish.ERROR or finish is Finish.ABORT:
            self.closed = True
            self._emit(failure(output))
            return
        answer = self._answer
        answer.take(output.tokens, finish or "", deque(output.logprobs) if output.logprobs else None)
        if answer.finish:
            self.closed = True
            if finish is None and self.request is not None:
                self._abort(self.request.id)

    def leave(self) -> None:
        """Nobody wants the rest."""
        if not self.closed:
            self.closed = True
            if self.request is not None:
                self._abort(self.request.id)


def failure(output: Output) -> ApiError:
    if output.finish is Finish.ABORT:
        return ApiError(503, output.error or "the server is shutting down")
    return ApiError(500, f"generation failed: {last_line(output.error) or 'no reason was given'}")


def last_line(trace: str) -> str:
    """What a traceback comes to."""
    return (trace.strip().splitlines() or [""])[-1]
