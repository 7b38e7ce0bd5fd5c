"""What an endpoint adds to a prompt beyond what its tokenizer says: learnt from the usage of one real answer.

`/tokenize` counts a conversation as the chat endpoint does. The responses endpoint of the same server may add more
(vLLM 0.30 puts a second BOS in front), and pictures cost tokens that no text tokenizer knows. Both are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redline.errors import EnvironmentFault, Unsupported
from redline.load.record import TokenSource
from redline.load.tokens import Messages, Tokenizer, UsageTokenizer

_PROBE = "Please say in one word what you see or read here."


class WithOverhead:
    """A tokenizer whose conversations cost `extra` tokens more."""

    def __init__(self, tokenizer: Tokenizer, extra: int) -> None:
        self.source: TokenSource = tokenizer.source
        self.extra = extra
        self._tokenizer = tokenizer

    def counts(self, texts: Sequence[str], *, special: bool = True) -> list[int]:
        return self._tokenizer.counts(texts, special=special)

    def chat_counts(self, chats: Sequence[Messages]) -> list[int]:
        return [count + self.extra for count in self._tokenizer.chat_counts(chats)]

    def ids(self, text: str, *, special: bool = True) -> list[int] | None:
        return self._tokenizer.ids(text, special=special)


def corrected(tokenizer: Tokenizer, usage: UsageTokenizer, notes: list[str]) -> Tokenizer:
    """The tokenizer as the endpoint behind `usage` counts; as it was when that says nothing."""
    chat: list[dict[str, Any]] = [{"role": "user", "content": _PROBE}]
    try:
        extra = usage.chat_counts([chat])[0] - tokenizer.chat_counts([chat])[0]
    except (EnvironmentFault, Unsupported) as problem:
        notes.append(f"whether {usage.path} adds tokens to a prompt is not known: {problem.what}")
        return tokenizer
    if extra == 0:
        return tokenizer
    notes.append(f"{usage.path} counts {extra:+d} tokens beside what /tokenize says; prompt lengths allow for it")
    return WithOverhead(tokenizer, extra)
