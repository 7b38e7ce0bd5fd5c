"""Small questions to a server: one request, one answer. Timing is `load`'s business, not this module's."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The parsed body; None when it is no JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def error(self) -> str:
        """The server's own message from an OpenAI-style, FastAPI-style or plain error body."""
        found = self.json()
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and key in found:
                found = found[key]
        return (found if isinstance(found, str) and found else self.text)[:500]


def connect(url: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection for the URL's scheme, host and port. Proxies are ignored: a benchmark talks to the server itself."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def fetch(
    url: str, *, body: object = None, raw: bytes | None = None, headers: Mapping[str, str] = {}, timeout_s: float = 5.0
) -> Reply:
    """GET, or POST when there is a `body` (sent as JSON) or `raw` bytes. OSError when no whole answer came in time.

    `timeout_s` bounds each wait for the socket.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    data = raw if raw is not None else None if body is None else orjson.dumps(body)
    sent = {
        "Accept": "application/json",
        **({"Content-Type": "application/json"} if data is not None else {}),
        **headers,
    }
    connection = connect(url, timeout_s)
    try:
        connection.request("GET" if data is None else "POST", target, body=data, headers=sent)
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"no proper HTTP answer from {parts.netloc}: {error!r}") from error
    finally:
        connection.close()


class Stream:
    """A streamed answer. `events` gives each `data:` event, parsed; `done` says whether `[DONE]` ended it."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.done = False
        self._answer = answer

    def events(self) -> Iterator[Any]:
        for line in self._answer:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                self.done = True
                return
            yield orjson.loads(data)


@contextmanager
def streaming(url: str, body: object, *, headers: Mapping[str, str] = {}, timeout_s: float = 30.0) -> Iterator[Stream]:
    """POSTs `body` as JSON and reads the answer as it comes. Leaving the block hangs up."""
    connection = connect(url, timeout_s)
    try:
        sent = {"Content-Type": "application/json", "Accept": "text/event-stream", **headers}
        connection.request("POST", urlsplit(url).path, body=orjson.dumps(body), headers=sent)
        with connection.getresponse() as answer:
            yield Stream(answer)
    except http.client.HTTPException as error:
        raise ConnectionError(f"no proper HTTP answer: {error!r}") from error
    finally:
        connection.close()


def try_fetch(
    url: str, *, body: object = None, headers: Mapping[str, str] = {}, timeout_s: float = 5.0
) -> Reply | None:
    """Like `fetch`, with None in place of OSError."""
    try:
        return fetch(url, body=body, headers=headers, timeout_s=timeout_s)
    except OSError:
        return None
