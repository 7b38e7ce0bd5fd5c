"""One choice of a response: its tokens become pieces of text with their counts and log-probabilities."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from .job import TokenLogprob
from .text import StopStrings


class Piece(NamedTuple):
    """`tokens` counts from the beginning of the answer; `stop` is the stop string that ended it."""

    choice: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...]
    finish: str
    stop: str


class Reader(Protocol):
    """Text of tokens as they come; see `text.Detokenizer`."""

    def add(self, token: int) -> str: ...

    def rest(self) -> str: ...


class Answer:
    """`per_token`: a piece for every token, with empty text where it has none to show yet.

    `silent` are tokens whose text is not part of the answer that they end.
    """

    def __init__(
        self,
        index: int,
        reader: Reader,
        stops: tuple[str, ...],
        per_token: bool,
        emit: Callable[[Piece], None],
        silent: frozenset[int] = frozenset(),
    ) -> None:
        self.index = index
        self.tokens = 0
        self.finish = ""
        self._reader = reader
        self._stops = StopStrings(stops)
        self._per_token = per_token
        self._emit = emit
        self._silent = silent
        self._logprobs: list[TokenLogprob] = []

    def take(self, tokens: Sequence[int], finish: str, logprobs: deque[TokenLogprob] | None = None) -> None:
        """`finish` belongs to the last token, `logprobs` to the first ones; what is used of it is taken out.

        Afterwards `self.finish` is set when a stop string came first.
        """
        last = len(tokens) - 1
        for number, token in enumerate(tokens):
            self.tokens += 1
            if logprobs:
                self._logprobs.append(logprobs.popleft())
            ended = finish if number == last else ""
            unseen = ended == "stop" and token in self._silent
            text, stop = self._stops.add("" if unseen else self._reader.add(token))
            if ended and not stop:
                more, stop = self._stops.add(self._reader.rest())
                text += more
                text += "" if stop else self._stops.rest()
            if stop:
                ended = "stop"
            self._show(text, ended, stop)
            if ended:
                return
        if finish and not tokens:
            self._show(self._reader.rest() + self._stops.rest(), finish, "")

    def _show(self, text: str, finish: str, stop: str) -> None:
        if not (text or finish or self._per_token):
            return
        self.finish = finish
        piece = Piece(self.index, text, self.tokens, tuple(self._logprobs), finish, stop)
        self._logprobs.clear()
        self._emit(piece)
