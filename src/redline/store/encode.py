"""Records as rows: how each field is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

from redline.load.record import RequestRecord
from redline.observe.event import Event
from redline.observe.span import Span
from redline.store.chunks import encode_times, encode_tokens

_COLUMNS = (
    *("point_id", "request_index", "intended_ns", "sent_ns", "connected_ns", "first_byte_ns", "answer_first_ns"),
    *("finished_ns", "first_chunk_ns", "last_chunk_ns", "chunks", "first_chunk_tokens", "chunk_ns", "chunk_tokens"),
    *("prompt_tokens", "cached_tokens", "asked_prompt_tokens", "asked_output_tokens", "output_tokens", "token_source"),
    *("status", "http_status", "error", "finish_reason", "stamp", "shared_stamps", "warmup", "text"),
    *("request_class", "session", "turn", "canary"),
)
INSERT_REQUEST = f"INSERT INTO request ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


INSERT_EVENT = "INSERT INTO event (trial_id, kind, began_ns, ended_ns, who, text) VALUES (?, ?, ?, ?, ?, ?)"
INSERT_SPAN = """INSERT INTO span
    (trial_id, trace_id, span_id, parent_id, name, service, began_ns, ended_ns, attributes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def event_row(trial_id: int, one: Event) -> tuple[Any, ...]:
    """Values of INSERT_EVENT."""
    return (trial_id, one.kind, one.began_ns, one.ended_ns, plain_text(one.who), plain_text(one.text))


def span_row(trial_id: int, one: Span) -> tuple[Any, ...]:
    """Values of INSERT_SPAN."""
    ids = (one.trace_id, one.span_id, one.parent_id, plain_text(one.name), plain_text(one.service))
    return (trial_id, *ids, one.began_ns, one.ended_ns, json_text(one.attributes))


def request_row(point_id: int, record: RequestRecord, clean: Callable[[str], str]) -> tuple[Any, ...]:
    """Values of INSERT_REQUEST. `clean` takes secrets out of the error text."""
    times, tokens = record.chunk_ns, record.chunk_tokens
    return (
        point_id,
        record.index,
        record.intended_ns,
        record.sent_ns,
        record.connected_ns,
        record.first_byte_ns,
        record.answer_first_ns,
        record.finished_ns,
        times[0] if times else 0,
        times[-1] if times else 0,
        len(times),
        tokens[0] if tokens else 0,
        encode_times(times),
        encode_tokens(tokens),
        record.prompt_tokens,
        record.cached_tokens,
        record.asked_prompt_tokens,
        record.asked_output_tokens,
        record.output_tokens,
        str(record.token_source),
        str(record.status),
        record.http_status,
        clean(plain_text(record.error)) if record.error else "",
        plain_text(record.finish_reason),
        record.stamp,
        record.shared_stamps,
        int(record.warmup),
        plain_text(record.text),
        record.request_class,
        record.session,
        record.turn,
        record.canary,
    )


def plain_text(text: str) -> str:
    """`text` as UTF-8 can hold it: half a surrogate pair, as a broken stream may contain, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def json_text(value: Any) -> str:
    """JSON of anything that a record may hold; NaN and infinity become null."""
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    try:
        return orjson.dumps(value, option=options, default=str).decode("utf-8")
    except TypeError:  # half a surrogate pair somewhere inside
        return plain_text(json.dumps(value, ensure_ascii=False, default=str))
