"""Tokens to text, one at a time, and the stop strings in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

CONTEXT = 6
"""Prompt tokens before the answer: some tokenizers write a token differently at the start of a text."""
LONGEST_HOLD = 12
"""A character has at most four bytes; a run of more tokens than this that still ends badly is not going to mend."""
BROKEN = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """Decodes a window of the last few tokens, so the cost per token does not grow with the answer.

    Text is held back while it ends in the middle of a character.
    """

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self._decode = decode
        self._window = list(prompt[-CONTEXT:])
        self._read = len(self._window)
        self._before = decode(self._window) if self._window else ""

    def add(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        broken = text.endswith(BROKEN) and len(self._window) - self._read < LONGEST_HOLD
        if broken or len(text) <= len(self._before):
            if not broken and len(self._window) > 4 * LONGEST_HOLD:
                self._forget()
            return ""
        new = text[len(self._before) :]
        self._forget()
        return new

    def _forget(self) -> None:
        """What was unread becomes the context of what follows."""
        del self._window[: self._read]
        self._read = len(self._window)
        self._before = self._decode(self._window)

    def rest(self) -> str:
        """What was held back and will not be completed."""
        return self._decode(self._window)[len(self._before) :]


class StopStrings:
    """Finds the first stop string; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def add(self, text: str) -> tuple[str, str]:
        """(text that can be shown, the stop string that was found or ''). Nothing may be added after a find."""
        if not self._stops:
            return text, ""
        whole = self._held + text
        found = [(at, stop) for stop in self._stops if (at := whole.find(stop)) >= 0]
        if found:
            at, stop = min(found, key=lambda pair: pair[0])
            self._held = ""
            return whole[:at], stop
        keep = max(_overlap(whole, stop) for stop in self._stops)
        self._held = whole[len(whole) - keep :]
        return whole[: len(whole) - keep], ""

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
