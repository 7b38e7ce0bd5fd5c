"""One request on its way: the answers to its prompts, and the client that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .answer import Piece
from .fault import ApiError
from .reply import DONE, Shape, dumps, event

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Start = Callable[..., Any]
"""Starts one answer, whose pieces go to the argument `emit`; returns what `abandon` takes."""

EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Exchange:
    """An ASGI response when streamed; `collect` gives the whole answer otherwise."""

    def __init__(self, abandon: Callable[[Any], None], shape: Shape, *, stream: bool, include_usage: bool) -> None:
        self.shape = shape
        self.stream = stream
        self.counts: list[int] = []
        self._include_usage = include_usage
        self._abandon_one = abandon
        self._jobs: list[Any] = []
        self._out: list[bytes] = []
        self._pieces: list[list[Piece]] = []
        self._open = 0
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def begin(self, starts: Sequence[Start]) -> None:
        self._open = len(starts)
        self._pieces = [[] for _ in starts]
        self.counts = [0] * len(starts)
        for start in starts:
            self._jobs.append(start(emit=self._take))

    def _take(self, piece: Piece | Exception) -> None:
        if isinstance(piece, Exception):
            self._error = piece
            self._open = 0
            self.leave()
        else:
            self._put(piece)
            self._open -= bool(piece.finish)
        if self.stream or self._open == 0:
            self._changed.set()

    def _put(self, piece: Piece) -> None:
        first = self.counts[piece.choice] == 0
        self.counts[piece.choice] = piece.tokens
        if not self.stream:
            self._pieces[piece.choice].append(piece)
            return
        if first and self.shape.chat:
            self._out.append(self.shape.opening(piece.choice))
        self._out.append(self.shape.chunk(piece, sum(self.counts)))

    def _written(self) -> bytes:
        """What is to be sent now."""
        body = b"".join(self._out)
        self._out.clear()
        return body

    def leave(self) -> None:
        for job in self._jobs:
            self._abandon_one(job)

    async def collect(self, request: Request) -> Response:
        """The whole answer at once; a client that leaves gives its place back."""
        watch = asyncio.create_task(self._watch(request.receive))
        try:
            while self._open:
                self._changed.clear()
                await self._changed.wait()
        finally:
            watch.cancel()
            self.leave()
        if self._error is not None:
            raise failure(self._error)
        return Response(self.whole(), media_type="application/json")

    def whole(self) -> bytes:
        return dumps(self.shape.body(self._pieces, sum(self.counts)))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._error = ConnectionResetError("the client went away")
        self._open = 0
        self._changed.set()

    async def __call__(self, _scope: Any, receive: Receive, send: Send) -> None:
        """Streams. The status waits for the first token, so an early failure still has its own."""
        watch = asyncio.create_task(self._watch(receive))
        started = False
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if isinstance(self._error, ConnectionResetError):
                    return
                if self._error is not None and not started:
                    await send_error(send, failure(self._error))
                    return
                if not started:
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
                ended = self._open == 0
                body = self._written()
                if ended:
                    body += self._closing()
                await send({"type": "http.response.body", "body": body, "more_body": not ended})
                if ended:
                    return
        finally:
            watch.cancel()
            self.leave()

    def _closing(self) -> bytes:
        if self._error is not None:
            return event(failure(self._error).body()) + DONE
        return self.shape.closing(sum(self.counts), self._include_usage)


def failure(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    return ApiError(500, f"generation failed: {type(error).__name__}: {error}")


async def send_error(send: Send, error: ApiError) -> None:
    headers = [(b"content-type", b"application/json"), *error.headers]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": dumps(error.body())})
