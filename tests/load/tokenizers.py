"""Tokenizers that are awkward in different ways, behind the Tokenizer protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from redline.errors import Unsupported
from redline.load.record import TokenSource
from redline.load.tokens import Messages

Split = Callable[[str], list[str]]


def by_word(text: str) -> list[str]:
    """Whole words with their blank; long ones in two."""
    return [part for word in re.findall(r" ?[^ ]+| ", text) for part in (word[:7], word[7:]) if part]


def by_character(text: str) -> list[str]:
    return list(text)


def across_words(text: str) -> list[str]:
    """Pieces of four characters, whatever they are: nothing adds up."""
    return [text[i : i + 4] for i in range(0, len(text), 4)]


def in_pairs(text: str) -> list[str]:
    """Two words make one token, an odd one is a token of its own: no length can be missed by one word."""
    found = text.split()
    return [" ".join(found[i : i + 2]) for i in range(0, len(found), 2)]


def never_odd(text: str) -> list[str]:
    """Every word is two tokens and nothing else is any: odd lengths cannot be had in text."""
    return [part for word in text.split() for part in (word, "")]


class FakeTokenizer:
    source = TokenSource.TOKENIZER

    def __init__(self, split: Split, *, bos: int = 1, template: str = "<user>{}<end><assistant>") -> None:
        self._split = split
        self._bos = bos
        self._template = template
        self._ids: dict[str, int] = {}
        self.asked = 0

    def counts(self, texts: Sequence[str], *, special: bool = True) -> list[int]:
        self.asked += len(texts)
        return [len(self._split(text)) + (self._bos if special else 0) for text in texts]

    def chat_counts(self, chats: Sequence[Messages]) -> list[int]:
        if not self._template:
            raise Unsupported("no chat template")
        rendered: list[Any] = [self._template.format(chat[0]["content"]) for chat in chats]
        return self.counts(rendered)

    def ids(self, text: str, *, special: bool = True) -> list[int] | None:
        self.asked += 1
        pieces = self._split(text)
        return [0] * (self._bos if special else 0) + [
            self._ids.setdefault(piece, len(self._ids) + 1) for piece in pieces
        ]
