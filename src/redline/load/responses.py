"""What an answer of the Responses API says: typed events, the last of which carries usage; there is no [DONE].

Every `….delta` event is a chunk, whichever item it belongs to: text, a refusal, the arguments of a call, reasoning.
Tokens that print nothing have no event at all, so the usage at the end decides how many there were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from redline.load.answer import Answer, Chunk, error_text, json_body, short
from redline.load.response import Response

_LENGTH = ("max_output_tokens", "max_tokens", "length")


def take_event(answer: Answer, data: bytes, name: bytes, at_ns: int) -> str:
    """Adds one event of the stream; returns what is wrong with it."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return f"an event is no JSON: {short(data)}"
    if not isinstance(found, dict):
        return f"an event is no JSON object: {short(data)}"
    kind = found.get("type") or name.decode("utf-8", "replace")
    if kind == "error" or (found.get("error") and kind != "response.failed"):
        return f"the server sent an error event: {error_text(data)}"
    if not isinstance(kind, str) or not kind.startswith("response."):
        return f"an event has no type of the Responses API: {short(data)}"
    if kind.endswith(".delta"):
        delta = found.get("delta")
        if isinstance(delta, str) and not kind.startswith("response.audio.delta"):
            answer.chunks.append(Chunk(at_ns, delta, "reasoning" in kind))
        return ""
    if kind in ("response.completed", "response.incomplete", "response.failed"):
        response = found.get("response")
        if not isinstance(response, dict):
            return f"the last event has no response in it: {short(data)}"
        answer.done_ns = at_ns
        return _finish(answer, response, failed=kind == "response.failed")
    return ""


def _finish(answer: Answer, response: dict[str, Any], *, failed: bool = False) -> str:
    """Usage and how it ended, from the response object; returns what is wrong."""
    if failed or response.get("status") in ("failed", "cancelled"):
        return f"the server says that the response {response.get('status') or 'failed'}: {_said(response)}"
    usage = response.get("usage")
    if isinstance(usage, dict):
        answer.take_usage(
            {
                "prompt_tokens": usage.get("input_tokens"),
                "completion_tokens": usage.get("output_tokens"),
                "prompt_tokens_details": usage.get("input_tokens_details"),
            }
        )
    details = response.get("incomplete_details")
    reason = str(details.get("reason") or "incomplete") if isinstance(details, dict) else ""
    answer.finish_reason = "length" if reason in _LENGTH else reason or "stop"
    return ""


def _said(response: dict[str, Any]) -> str:
    return error_text(orjson.dumps({"error": response.get("error") or "it does not say why"}))


def read_whole(response: Response, at_ns: int) -> Answer:
    """An answer that came in one piece."""
    answer = Answer()
    found, answer.problem = json_body(response, "output", _has_output)
    if answer.problem:
        return answer
    answer.problem = _finish(answer, found)
    if answer.problem:
        return answer
    answer.done_ns = at_ns
    for reasoning in (True, False):
        text = "".join(text for thought, text in _texts(found["output"]) if thought is reasoning)
        if text:
            answer.chunks.append(Chunk(at_ns, text, reasoning))
    return answer


def _has_output(found: dict[str, Any]) -> bool:
    return found.get("object") != "error" and isinstance(found.get("output"), list)


def _texts(output: list[Any]) -> Iterator[tuple[bool, str]]:
    """(is it reasoning, text) of every piece of every item."""
    for item in output:
        if not isinstance(item, dict):
            continue
        thought = item.get("type") == "reasoning"
        for key in ("content", "summary"):
            parts = item.get(key)
            for part in parts if isinstance(parts, list) else ():
                text = (part.get("text") or part.get("refusal")) if isinstance(part, dict) else None
                if isinstance(text, str):
                    yield thought, text
        if isinstance(item.get("arguments"), str):
            yield thought, str(item.get("name") or "") + item["arguments"]
