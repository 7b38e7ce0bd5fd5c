"""Answers of the paced server in the words of the other two APIs: responses and embeddings."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from functools import lru_cache
from typing import Any

from redline.load.paced.pace import Asked, Fault, Pace, Step, answer, deltas, spoiled, words


def script(pace: Pace, asked: Asked, fault: Fault) -> tuple[list[Step], str]:
    """The framed script of one answer, and how the connection ends: keep, close, reset or stall."""
    if asked.api == "responses":
        return answer(pace, asked, fault, events=_events, single=_single)
    if asked.api == "embeddings":
        return answer(pace, asked, fault, single=_vectors)
    return answer(pace, asked, fault)


@lru_cache(maxsize=65536)
def _event(size: int, newline: str, kind: str, inner: str) -> bytes:
    """One typed event. `inner` is the JSON object of its fields."""
    data = json.dumps({**json.loads(inner), "type": kind}, separators=(",", ":"))
    data = data[:-1] + ',"padding":"' + "x" * max(0, size - len(data) - len(kind) - 34) + '"}'
    end = "\r\n" if newline == "crlf" else "\n"
    return f"event: {kind}{end}data: {data}{end}{end}".encode()


def _events(pace: Pace, asked: Asked, fault: Fault) -> list[Step]:
    """Events of one streamed answer, not yet framed."""

    def event(kind: str, **fields: Any) -> bytes:
        return _event(pace.chunk_bytes, pace.newline, kind, json.dumps(fields))

    at = int(pace.ttft_ms * 1e6)
    steps: list[Step] = [
        (at, event("response.created", response=_response(pace, "in_progress")), 0),
        (at, event("response.output_item.added", item={"type": "message", "role": "assistant"}), 0),
    ]
    done = 0
    for offset, text, count, reasoning in deltas(pace, asked, fault):
        kind = "response.reasoning_text.delta" if reasoning else "response.output_text.delta"
        at, done = offset, done + count
        steps.append((at, event(kind, item_id="paced-1", delta=text), count))
    steps.append((at, event("response.output_item.done", item={"type": "message"}), 0))
    if fault == "no-finish":
        return steps
    last = _response(pace, "incomplete", _usage(pace, asked, done))
    return [*steps, (at, event("response.incomplete", response=last), 0)]


def _response(pace: Pace, status: str, usage: dict[str, Any] | None = None, output: Any = ()) -> dict[str, Any]:
    details = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": "paced-1", "object": "response", "model": pace.model, "status": status,
        "incomplete_details": details, "output": list(output), "usage": usage,
    }  # fmt: skip


def _usage(pace: Pace, asked: Asked, done: int) -> dict[str, Any] | None:
    if pace.usage == "none":
        return None
    return {
        "input_tokens": asked.prompt_tokens,
        "input_tokens_details": {"cached_tokens": asked.cached},
        "output_tokens": done,
        "output_tokens_details": {"reasoning_tokens": min(done, pace.reasoning)},
        "total_tokens": asked.prompt_tokens + done,
    }


def _single(pace: Pace, asked: Asked, fault: Fault) -> list[Step]:
    tokens = 0 if fault == "empty" else asked.tokens
    thought = min(tokens, pace.reasoning)
    output: list[dict[str, Any]] = []
    if thought:
        output.append({"type": "reasoning", "content": [{"type": "reasoning_text", "text": words(0, thought)}]})
    if tokens > thought:
        text = words(thought, tokens - thought)
        output.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
    at = int(pace.ttft_ms * 1e6) + max(0, tokens - 1) * int(pace.itl_ms * 1e6)
    return [(at, spoiled(_response(pace, "incomplete", _usage(pace, asked, tokens), output), fault), tokens)]


def _vectors(pace: Pace, asked: Asked, fault: Fault) -> list[Step]:
    """One vector per input, after `ttft_ms`; the same text has the same vector."""
    data = []
    for place, text in enumerate(asked.inputs[:-1] if fault == "empty" else asked.inputs):
        size = pace.dimensions - (fault == "no-finish")
        data.append({"object": "embedding", "index": place, "embedding": _encoded(text, size, asked.base64)})
    body: dict[str, Any] = {"object": "list", "model": pace.model, "data": data}
    if pace.usage != "none":
        body["usage"] = {"prompt_tokens": asked.prompt_tokens, "total_tokens": asked.prompt_tokens}
    return [(int(pace.ttft_ms * 1e6), spoiled(body, fault), 0)]


@lru_cache(maxsize=4096)
def _encoded(text: str, size: int, as_base64: bool) -> list[float] | str:
    noise = hashlib.shake_128(text.encode()).digest(4 * size)
    values = [(number - 2**31) / 2**32 + 2**-33 for number in struct.unpack(f"<{size}I", noise)]
    norm = sum(value * value for value in values) ** 0.5
    values = [value / norm for value in values]
    return base64.b64encode(struct.pack(f"<{size}f", *values)).decode() if as_base64 else values
