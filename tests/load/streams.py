"""Raw streams made by hand: any bytes, cut anywhere."""

from __future__ import annotations

import itertools
import json
from typing import Any

from redline.load.frames import End, RawStream, Stamp, StreamHead

MS = 1_000_000
SENT = 1_000 * MS


def head(end: End = End.COMPLETE, **changes: Any) -> StreamHead:
    values: dict[str, Any] = {
        "number": 7,
        "intended_ns": SENT - MS,
        "connect_ns": 0,
        "connected_ns": 0,
        "sent_ns": SENT,
        "ended_ns": SENT + 500 * MS,
        "end": end,
        "stamp": Stamp.KERNEL,
        "retried": 0,
    }
    return StreamHead(**{**values, **changes})


def raw(pieces: list[bytes], end: End = End.COMPLETE, error: str = "", **changes: Any) -> RawStream:
    """Piece i arrives 10 ms after piece i − 1, the first 10 ms after the request left."""
    stamps = [SENT + 10 * MS * (i + 1) for i in range(len(pieces))]
    changes.setdefault("ended_ns", stamps[-1] if stamps else SENT + 500 * MS)
    seen = [stamp + 20_000 for stamp in stamps]
    return RawStream(head(end, **changes), error, b"".join(pieces), [len(p) for p in pieces], stamps, seen)


def cut(data: bytes, marks: list[int]) -> list[bytes]:
    """`data` cut at `marks` (any order, repeats and ends allowed)."""
    places = sorted({0, len(data), *(mark % (len(data) + 1) for mark in marks)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def chunked(*parts: bytes, last: bool = True) -> list[bytes]:
    pieces = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    return [*pieces, b"0\r\n\r\n"] if last else pieces


OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BARE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(body: object, newline: str = "\n") -> bytes:
    return f"data: {json.dumps(body)}{newline}{newline}".encode()


def text_event(text: str, finish: str | None = None, usage: tuple[int, int] | None = None) -> bytes:
    """One completions event; `usage` is (prompt, completion)."""
    body: dict[str, Any] = {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return event(body)


def chat_event(delta: dict[str, Any], finish: str | None = None, usage: tuple[int, int] | None = None) -> bytes:
    body: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return event(body)


def usage_event(prompt: int, completion: int, cached: int | None = None) -> bytes:
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    return event({"choices": [], "usage": usage})
