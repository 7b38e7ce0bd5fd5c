"""The JSON and the server-sent events of completions and chat."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from .answer import Piece
from .job import TokenLogprob
from .text import BROKEN, Decode

DONE = b"data: [DONE]\n\n"
quoted = json.encoder.encode_basestring_ascii
"""A text as JSON; `json.dumps` takes three times as long, and this is asked for every chunk."""

MIDDLE = ',"logprobs":null,"finish_reason":null,"stop_reason":null}]'


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def event(value: Any) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def usage(prompt_tokens: int, tokens: int, cached: int | None = None) -> dict[str, Any]:
    """`cached`: prompt tokens that a prefix cache had; None says nothing about them."""
    told = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
    return told if cached is None else {**told, "prompt_tokens_details": {"cached_tokens": cached}}


class Shape:
    """Writes one response; what does not change between chunks is written once."""

    def __init__(self, *, chat: bool, model: str, prompt_tokens: int, decode: Decode, usage: str) -> None:
        """`usage`: '' for none, 'last' for a chunk of its own at the end, 'each' for a count on every chunk."""
        self.chat = chat
        self.id = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        self.model = model
        self.created = int(time.time())
        self.prompt_tokens = prompt_tokens
        self.cached: int | None = None
        self._decode = decode
        self._usage = usage
        self._offsets: dict[int, int] = {}
        kind = "chat.completion.chunk" if chat else "text_completion"
        self._head = dumps(self._envelope(kind))[:-1]
        self._before = (b"data: " + self._head).decode() + ',"choices":[{"index":'

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def opening(self, index: int) -> bytes:
        """Chat says the role before the first words."""
        if not self.chat:
            return b""
        return self._chunk(index, '"delta":{"role":"assistant","content":""}', None, "", "", 0)

    def chunk(self, piece: Piece, tokens: int) -> bytes:
        """`tokens`: of all choices together so far."""
        text = quoted(piece.text)
        body = f'"delta":{{"content":{text}}}' if self.chat else f'"text":{text}'
        logprobs = self.logprobs(piece.choice, piece.text, piece.logprobs) if piece.logprobs else None
        return self._chunk(piece.choice, body, logprobs, piece.finish, piece.stop, tokens)

    def _chunk(
        self, index: int, body: str, logprobs: dict[str, Any] | None, finish: str, stop: str, tokens: int
    ) -> bytes:
        if logprobs or finish:
            end = (
                f',"logprobs":{json.dumps(logprobs) if logprobs else "null"},'
                f'"finish_reason":{json.dumps(finish or None)},"stop_reason":{json.dumps(stop or None)}}}]'
            )
        else:
            end = MIDDLE
        tail = "}\n\n"
        if self._usage == "each":
            tail = ',"usage":' + dumps(self.usage(tokens)).decode() + tail
        elif self._usage == "last":
            tail = ',"usage":null' + tail
        return (self._before + str(index) + "," + body + end + tail).encode()

    def usage(self, tokens: int) -> dict[str, Any]:
        return usage(self.prompt_tokens, tokens, self.cached)

    def closing(self, tokens: int, include_usage: bool) -> bytes:
        if not include_usage:
            return DONE
        body = b',"choices":[],"usage":' + dumps(self.usage(tokens)) + b"}"
        return b"data: " + self._head + body + b"\n\n" + DONE

    def body(self, choices: Sequence[Sequence[Piece]], tokens: int) -> dict[str, Any]:
        """A response without streaming, from the pieces of each choice."""
        kind = "chat.completion" if self.chat else "text_completion"
        body = self._envelope(kind)
        body["choices"] = [self._choice(index, pieces) for index, pieces in enumerate(choices)]
        body["usage"] = self.usage(tokens)
        return body

    def _choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        entries = [entry for piece in pieces for entry in piece.logprobs]
        body: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {
            "index": index,
            **body,
            "logprobs": self.logprobs(index, text, entries) if entries else None,
            "finish_reason": pieces[-1].finish,
            "stop_reason": pieces[-1].stop or None,
        }

    def logprobs(self, index: int, text: str, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        if self.chat:
            return {"content": [self._chat_logprob(entry) for entry in entries]}
        words = [self._word(entry.token) for entry in entries]
        start = self._offsets.get(index, 0)
        self._offsets[index] = start + len(text)
        offsets, at = [], start
        for word in words:
            offsets.append(at)
            at += len(word)
        # From the least likely on: of two tokens with the same text the likelier stays.
        top = [{self._word(token): value for token, value in reversed(entry.top)} for entry in entries]
        return {
            "tokens": words,
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": top,
            "text_offset": offsets,
        }

    def _word(self, token: int) -> str:
        """Its text, or its number where it is part of a character."""
        text = self._decode([token])
        return f"token_id:{token}" if BROKEN in text else text

    def _chat_logprob(self, entry: TokenLogprob) -> dict[str, Any]:
        def item(token: int, value: float) -> dict[str, Any]:
            text = self._word(token)
            known = None if BROKEN in self._decode([token]) else list(text.encode())
            return {"token": text, "logprob": value, "bytes": known}

        return {**item(entry.token, entry.logprob), "top_logprobs": [item(*pair) for pair in entry.top]}
