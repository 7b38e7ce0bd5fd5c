"""One choice of a response: its tokens become pieces of text with their counts and log-probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .job import Job, TokenLogprob
from .text import Decode, Detokenizer, StopStrings


class Piece(NamedTuple):
    """`tokens` counts from the beginning of the answer; `stop` is the stop string that ended it."""

    choice: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...]
    finish: str
    stop: str


class Answer:
    """`per_token`: a piece for every token, with empty text where it has none to show yet."""

    def __init__(
        self,
        index: int,
        decode: Decode,
        prompt: list[int],
        stops: tuple[str, ...],
        per_token: bool,
        emit: Callable[[Piece], None],
    ) -> None:
        self.index = index
        self.tokens = 0
        self.finish = ""
        self._detokenizer = Detokenizer(decode, prompt)
        self._stops = StopStrings(stops)
        self._per_token = per_token
        self._emit = emit
        self._logprobs: list[TokenLogprob] = []

    def take(self, job: Job, tokens: list[int], finish: str) -> None:
        """`finish` belongs to the last token. Afterwards `self.finish` is set when a stop string came first."""
        last = len(tokens) - 1
        for number, token in enumerate(tokens):
            self.tokens += 1
            if job.sampling.top_logprobs is not None and job.logprobs:
                self._logprobs.append(job.logprobs.popleft())
            text, stop = self._stops.add(self._detokenizer.add(token))
            ended = finish if number == last else ""
            if ended and not stop:
                more, stop = self._stops.add(self._detokenizer.rest())
                text += more
                text += "" if stop else self._stops.rest()
            if stop:
                ended = "stop"
            self._show(text, ended, stop)
            if ended:
                return
        if finish and not tokens:
            self._show(self._detokenizer.rest() + self._stops.rest(), finish, "")

    def _show(self, text: str, finish: str, stop: str) -> None:
        if not (text or finish or self._per_token):
            return
        self.finish = finish
        piece = Piece(self.index, text, self.tokens, tuple(self._logprobs), finish, stop)
        self._logprobs.clear()
        self._emit(piece)
