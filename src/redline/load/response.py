"""A raw stream as an HTTP response, with the piece that carried each byte of the body."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

import httptools

from redline.load.frames import End, RawStream


@dataclass
class Response:
    """`ends[i]` is how many bytes of the body had arrived with piece i: it maps body offsets to arrival stamps."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case; of repeated ones the last."""
    body: bytes = b""
    ends: list[int] = field(default_factory=list)
    whole: bool = False
    """The message ended as its framing says it must."""
    fault: str = ""
    """Why it is no proper HTTP."""

    def piece_of(self, end: int) -> int:
        """The piece that completed the first `end` bytes of the body."""
        return bisect_left(self.ends, end)


class _Collector:
    """httptools protocol; a 1xx answer is forgotten when the real one begins, and what follows that one is nobody's.

    A server that closes an idle connection may say 408 right behind a good answer.
    """

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.size = 0
        self.status = 0
        self.head_done = False
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:  # later ones are trailers
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if not self.whole:
            self.status = self.parser.get_status_code()
            self.head_done = self.status >= 200

    def on_body(self, body: bytes) -> None:
        if not self.whole:
            self.parts.append(body)
            self.size += len(body)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.whole = True
        else:
            self.headers = {}


def read_response(raw: RawStream) -> Response:
    """Parse piece by piece, so that every byte of the body is known to have come with its piece."""
    collector = _Collector()
    response = Response()
    feed, ends, at = collector.parser.feed_data, response.ends, 0
    for length in raw.lengths:
        if not collector.whole and not response.fault:
            try:
                feed(raw.data[at : at + length])
            except httptools.HttpParserError as error:
                response.fault = "" if collector.whole else f"no proper HTTP: {error}"
            except httptools.HttpParserUpgrade:
                response.fault = "no proper HTTP: the server wants another protocol"
        at += length
        ends.append(collector.size)
    response.headers = collector.headers
    response.body = b"".join(collector.parts)
    response.whole = collector.whole
    if collector.head_done:
        response.status = collector.status
        if not {"transfer-encoding", "content-length"} & response.headers.keys():
            response.whole = response.whole or raw.head.end is End.CLOSED
    del collector.parser  # it refers back: without this every response waits for the garbage collector
    return response
