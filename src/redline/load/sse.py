"""Server-sent events out of a whole body, each with the offset at which it was complete.

Follows the WHATWG rules: lines end in LF, CR LF or CR; `data:` lines of one event are joined by LF; comments and
fields without meaning here are skipped; an event without data is none. https://html.spec.whatwg.org/#parsing-an-event-stream
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    end: int
    """Bytes of the body up to and with the blank line that ended the event."""
    data: bytes
    name: bytes = b""
    ended: bool = True
    """False when the body stopped before the blank line came."""


def events(body: bytes) -> Iterator[Event]:
    """Every event with data, in order; one that was cut off comes last, with `ended` False."""
    at = len(_BOM) if body.startswith(_BOM) else 0
    if b"\r" in body:
        yield from _any_newline(body, at)
        return
    find = body.find
    while True:
        end = find(b"\n\n", at)
        if end < 0:
            break
        if body.startswith(b"data: ", at) and find(b"\n", at, end) < 0:
            yield Event(end + 2, body[at + 6 : end])
        else:
            event = _block(body[at:end], end + 2)
            if event is not None:
                yield event
        at = end + 2
    last = _block(body[at:], len(body), ended=False)
    if last is not None:
        yield last


def _any_newline(body: bytes, at: int) -> Iterator[Event]:
    while True:
        blank = _BLANK_LINE.search(body, at)
        if blank is None:
            break
        event = _block(body[at : blank.start()], blank.end())
        if event is not None:
            yield event
        at = blank.end()
    last = _block(body[at:], len(body), ended=False)
    if last is not None:
        yield last


def _block(block: bytes, end: int, ended: bool = True) -> Event | None:
    """The event that a run of lines makes; None when it has no data."""
    data: list[bytes] = []
    name = b""
    for line in _LINE_END.split(block):
        key, colon, value = line.partition(b":")
        if not key and colon:
            continue  # a comment, as servers send to keep a connection open
        value = value[1:] if value.startswith(b" ") else value
        if key == b"data":
            data.append(value)
        elif key == b"event":
            name = value
    return Event(end, b"\n".join(data), name, ended) if data else None
