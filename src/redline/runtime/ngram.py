"""Guessing by looking the last tokens up in the request's own text. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from redline.runtime.request import Request

WINDOW = 1 << 15
"""Only so many tokens at the end of a prompt are indexed: some 20 ms once, and 10 MB, for the longest."""


class NgramIndex:
    """Where each n-gram of one text occurred last, with what came after it.

    A step costs its new tokens, whatever the length. An n-gram is entered when the token after it is known, so the one
    at the very end is never found as its own continuation.
    """

    def __init__(self, shortest: int, longest: int) -> None:
        self._lengths = range(longest, shortest - 1, -1)
        self._after: dict[tuple[int, ...], int] = {}
        self._seen = 0

    def update(self, tokens: Sequence[int]) -> None:
        after, lengths = self._after, self._lengths
        for place in range(max(self._seen, len(tokens) - WINDOW, 1), len(tokens)):
            for length in lengths:
                if length <= place:
                    after[tuple(tokens[place - length : place])] = place
        self._seen = len(tokens)

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """What followed the latest occurrence of the longest n-gram that the text ends with; [] when there is none.

        Where that runs into the end of the text it goes on with what was guessed, so a period repeats.
        """
        size = len(tokens)
        for length in self._lengths:
            place = self._after.get(tuple(tokens[size - length :])) if length < size else None
            if place is not None:
                guessed: list[int] = []
                for i in range(place, place + most):
                    guessed.append(tokens[i] if i < size else guessed[i - size])
                return guessed
        return []


class NgramProposer:
    """See `step.Proposer`. Its guesses come without a distribution, and `verify` takes each as it is."""

    def __init__(self, shortest: int = 2, longest: int = 4) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(f"n-grams of {shortest} to {longest} tokens")
        self._shortest, self._longest = shortest, longest
        self._indexes: dict[str, NgramIndex] = {}

    def propose(self, requests: Sequence[Request], most: int) -> None:
        for request in requests:
            index = self._indexes.get(request.id)
            if index is None:
                index = self._indexes[request.id] = NgramIndex(self._shortest, self._longest)
            index.update(request.tokens)
            room = room_for(request, most)
            request.draft = index.guess(request.tokens, room) if room > 0 else []
            fit(request)

    def release(self, request: Request) -> None:
        self._indexes.pop(request.id, None)


def room_for(request: Request, most: int) -> int:
    """Guesses that can be of use: after them one more token always comes."""
    return min(most, request.sampling.max_tokens - request.generated - 1)


def fit(request: Request) -> None:
    """Cuts the draft where the answer would end, or where the grammar forbids it: neither needs to be computed."""
    draft = request.draft
    end = next((i + 1 for i, token in enumerate(draft) if token in request.sampling.stop_ids), len(draft))
    if request.matcher is not None and end:
        end = min(end, request.matcher.allowed(draft[:end]))
    request.draft = draft[:end]
