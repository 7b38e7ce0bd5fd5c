"""What an OpenAI-like answer says: content chunks with their arrival, usage, how it finished, or what is wrong with it.

An event counts as a chunk when it carries text, or when the server's own usage says that it carried tokens. Knows
nothing of clocks and sockets beyond the stamps it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from redline.load.response import Response
from redline.load.sse import events

_ERROR_MAX = 500


@dataclass(slots=True)
class Chunk:
    """One event with a choice in it, and no mere announcement of the role."""

    at_ns: int
    text: str
    reasoning: bool = False
    tokens_so_far: int = -1
    """Completion tokens up to here by the event's own usage; -1 without it."""
    last: bool = False
    """Carries the finish reason."""


@dataclass
class Answer:
    """`problem` says why it is malformed; what came before is kept. `done_ns` is when [DONE] arrived."""

    chunks: list[Chunk] = field(default_factory=list)
    finish_reason: str = ""
    done_ns: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cached_told: bool = False
    """The server says how much of the prompt came from its cache, be it nothing."""
    logprobs: list[float] = field(default_factory=list)
    """Of the tokens of the answer, where they were asked for."""
    completion_tokens: int = -1
    """By the server's usage; -1 when it gave none."""
    problem: str = ""
    roles: int = 0
    """Events that only announce the role."""

    def take_usage(self, usage: dict[str, Any]) -> int:
        """Keeps the counts; returns the completion tokens, -1 when there are none in it."""
        completion = usage.get("completion_tokens")
        if not isinstance(completion, int):
            return -1
        self.completion_tokens = completion
        self.prompt_tokens = _number(usage.get("prompt_tokens")) or self.prompt_tokens
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.cached_told = self.cached_told or isinstance(details.get("cached_tokens"), int)
            self.cached_tokens = _number(details.get("cached_tokens")) or self.cached_tokens
        return completion


TakeEvent = Callable[[Answer, bytes, bytes, int], str]
"""(answer, data, event name, arrival): adds an event to the answer, sets `done_ns` with the last one, and returns what
is wrong with it."""


def read_stream(response: Response, stamps: Sequence[int], take: TakeEvent | None = None) -> Answer:
    """The events of a streamed answer; reading stops at the last one and at the first thing that is wrong."""
    take = take or take_event
    answer = Answer()
    piece, ends = 0, response.ends
    for event in events(response.body):
        if not event.data or not (event.ended or response.whole):
            continue
        while ends[piece] < event.end:
            piece += 1
        if event.data == b"[DONE]":
            answer.done_ns = stamps[piece]
            break
        answer.problem = take(answer, event.data, event.name, stamps[piece])
        if answer.problem or answer.done_ns:
            break
    return answer


def take_event(answer: Answer, data: bytes, name: bytes, at_ns: int) -> str:
    """Adds one event; returns what is wrong with it."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        if name == b"error":
            return f"the server sent an error event: {short(data)}"
        return f"an event is no JSON: {short(data)}"
    if not isinstance(found, dict):
        return f"an event is no JSON object: {short(data)}"
    if name == b"error" or found.get("error") or found.get("object") == "error":
        return f"the server sent an error event: {error_text(data)}"
    usage = found.get("usage")
    so_far = answer.take_usage(usage) if isinstance(usage, dict) else -1
    choices = found.get("choices")
    if not choices:
        return ""
    try:
        _take_choice(answer, choices[0], so_far, at_ns)
    except (KeyError, TypeError, AttributeError, IndexError):
        return f"an event has no proper choice in it: {short(data)}"
    return ""


def _take_choice(answer: Answer, choice: dict[str, Any], so_far: int, at_ns: int) -> None:
    finish = choice.get("finish_reason")
    reasoning = False
    delta = choice.get("delta")
    if delta is None:
        text = choice.get("text") or ""
    else:
        text = _visible(delta)
        if not text:
            text = delta.get("reasoning_content") or delta.get("reasoning") or ""
            reasoning = bool(text)
        if not text and not finish and "role" in delta and so_far <= 0:
            answer.roles += 1
            return
    if not isinstance(text, str):
        raise TypeError(text)
    if finish:
        answer.finish_reason = str(finish)
    if choice.get("logprobs"):
        answer.logprobs += _logprobs(choice["logprobs"])
    answer.chunks.append(Chunk(at_ns, text, reasoning, so_far, bool(finish)))


def _logprobs(told: dict[str, Any]) -> list[float]:
    """Chat has them in `content`, completions in `token_logprobs`."""
    values = [item.get("logprob") for item in told.get("content") or ()] or told.get("token_logprobs") or []
    return [float(value) for value in values if isinstance(value, (int, float))]


def _visible(message: dict[str, Any]) -> str:
    """Answer text of a delta or message: content, a refusal, or the pieces of a tool call."""
    text = message.get("content") or message.get("refusal")
    if text or not message.get("tool_calls"):
        return text or ""
    parts = [call.get("function") or {} for call in message["tool_calls"]]
    return "".join((part.get("name") or "") + (part.get("arguments") or "") for part in parts)


def read_whole(response: Response, at_ns: int) -> Answer:
    """An answer that came in one piece: all of its text arrived with the last byte."""
    answer = Answer()
    found, answer.problem = json_body(
        response, "choices", lambda found: not found.get("error") and found.get("choices")
    )
    if answer.problem:
        return answer
    if isinstance(found.get("usage"), dict):
        answer.take_usage(found["usage"])
    try:
        _take_whole(answer, found["choices"][0], at_ns)
    except (KeyError, TypeError, AttributeError, IndexError):
        answer.problem = f"the answer has no proper choice in it: {short(response.body)}"
    return answer


def _take_whole(answer: Answer, choice: dict[str, Any], at_ns: int) -> None:
    message = choice.get("message")
    thought = "" if message is None else message.get("reasoning_content") or message.get("reasoning") or ""
    text = choice.get("text") or "" if message is None else _visible(message)
    if not isinstance(thought, str) or not isinstance(text, str):
        raise TypeError(text)
    if choice.get("logprobs"):
        answer.logprobs += _logprobs(choice["logprobs"])
    answer.finish_reason = str(choice.get("finish_reason") or "stop")
    answer.done_ns = at_ns
    if thought:
        answer.chunks.append(Chunk(at_ns, thought, reasoning=True))
    if text:
        answer.chunks.append(Chunk(at_ns, text))


def json_body(response: Response, what: str, fits: Callable[[dict[str, Any]], object]) -> tuple[dict[str, Any], str]:
    """The JSON object of an answer in one piece, and what is wrong with it; `fits` is true when `what` is in it."""
    try:
        found = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return {}, f"the answer is no JSON: {short(response.body)}"
    if not isinstance(found, dict) or not fits(found):
        return {}, f"the answer has no {what}: {error_text(response.body)}"
    return found, ""


def error_text(body: bytes) -> str:
    """The server's own words from an OpenAI-style, FastAPI-style or plain error body."""
    try:
        found: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return short(body)
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return found[:_ERROR_MAX] if isinstance(found, str) else short(body)


def short(data: bytes) -> str:
    """The beginning of it, as text."""
    text = data[:_ERROR_MAX].decode("utf-8", "replace").strip()
    return text if len(data) <= _ERROR_MAX else text + "…"


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
