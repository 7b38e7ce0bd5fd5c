"""The routes: OpenAI's completions and chat, vLLM's tokenize and detokenize, health, models, version, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import metrics
from .answer import Piece
from .ask import Ask, Fields, parse, read_messages
from .ask import _ids as read_ids
from .fault import ApiError, bad
from .job import Job
from .reply import DONE, Shape, dumps, event
from .service import LONG_TEXT, Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def create_app(service: Service, *, max_body: int, versions: dict[str, str]) -> Starlette:
    routes = Routes(service, max_body, versions)
    get, post = ["GET"], ["POST"]
    table = [
        ("/health", routes.health, get),
        ("/v1/models", routes.models, get),
        ("/version", routes.version, get),
        ("/metrics", routes.metrics, get),
        ("/v1/completions", routes.completions, post),
        ("/v1/chat/completions", routes.chat, post),
        ("/tokenize", routes.tokenize, post),
        ("/detokenize", routes.detokenize, post),
    ]
    handlers: dict[Any, Any] = {ApiError: _api_error, Exception: _unexpected}
    return Starlette(
        routes=[Route(path, function, methods=methods) for path, function, methods in table],
        exception_handlers=handlers,
    )


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return reply(error.body(), error.status)


async def _unexpected(_: Request, error: Exception) -> Response:
    return reply(ApiError(500, f"{type(error).__name__}: {error}").body(), 500)


def reply(value: Any, status: int = 200) -> Response:
    return Response(dumps(value), status, media_type="application/json")


class Routes:
    def __init__(self, service: Service, max_body: int, versions: dict[str, str]) -> None:
        self.service = service
        self.max_body = max_body
        self.versions = versions

    async def health(self, _: Request) -> Response:
        trouble = self.service.trouble()
        return reply({"status": trouble or "ok", "phase": self.service.phase}, 503 if trouble else 200)

    async def models(self, _: Request) -> Response:
        loaded, _worker = self.service.ready
        card = {
            "id": self.service.name,
            "object": "model",
            "created": 0,
            "owned_by": "transformers",
            "max_model_len": loaded.max_model_len,
        }
        return reply({"object": "list", "data": [card]})

    async def version(self, _: Request) -> Response:
        return reply({"version": self.versions.get("transformers", ""), **self.versions})

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse(metrics.render(self.service), media_type="text/plain; version=0.0.4")

    async def completions(self, request: Request) -> Any:
        return await self._answer(request, chat=False)

    async def chat(self, request: Request) -> Any:
        return await self._answer(request, chat=True)

    async def tokenize(self, request: Request) -> Response:
        body = await self._body(request)
        fields = Fields(body)
        self.service.check_model(fields.text("model"))
        chat = "messages" in body
        special = fields.flag("add_special_tokens", not chat)
        if chat:
            extra = {"add_generation_prompt": fields.flag("add_generation_prompt", True)}
            text = self.service.render(read_messages(body), extra)
        elif isinstance(body.get("prompt"), str):
            text = body["prompt"]
        else:
            raise bad("prompt must be text", "prompt")
        ids = await self._off_loop(len(text), self.service.encode, text, special)
        limit = self.service.ready[0].max_model_len
        return reply({"count": len(ids), "max_model_len": limit, "tokens": ids})

    async def detokenize(self, request: Request) -> Response:
        body = await self._body(request)
        self.service.check_model(Fields(body).text("model"))
        ids = self.service.encode(tuple(read_ids(body.get("tokens"), "tokens")), False)
        tokenizer = self.service.ready[0].tokenizer
        return reply({"prompt": tokenizer.decode(ids, clean_up_tokenization_spaces=False)})

    async def _body(self, request: Request) -> dict[str, Any]:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.max_body:
                raise ApiError(413, f"the body is larger than {self.max_body} bytes")
            parts.append(part)
        try:
            body = json.loads(b"".join(parts))
        except (ValueError, RecursionError) as error:
            raise bad(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise bad("the body must be a JSON object")
        return body

    async def _answer(self, request: Request, *, chat: bool) -> Any:
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return Response(status_code=499)
        loaded, _ = self.service.ready
        ask = parse(body, chat=chat, defaults=loaded.sampling_defaults)
        self.service.check_model(ask.model)
        size = sum(len(one) for one in ask.prompts if isinstance(one, str)) + len(str(ask.messages or ""))
        prompts = await self._off_loop(size, self.service.prompts, ask)
        samplings = [self.service.sampling(ask, prompt) for prompt in prompts]
        self.service.admit(len(prompts))
        usage = "each" if ask.continuous_usage else ("last" if ask.include_usage else "")
        shape = Shape(
            chat=chat,
            model=self.service.name,
            prompt_tokens=sum(map(len, prompts)),
            decode=loaded.decode,
            usage=usage,
        )
        exchange = Exchange(self.service, ask, shape)
        exchange.begin(list(zip(prompts, samplings, strict=True)))
        return exchange if ask.stream else await exchange.collect(request)

    async def _off_loop(self, size: int, function: Callable[..., Any], *args: Any) -> Any:
        if size > LONG_TEXT:
            return await asyncio.to_thread(function, *args)
        return function(*args)


class Exchange:
    """One request on its way: the answers to its prompts, and the client that waits. An ASGI response when streamed."""

    def __init__(self, service: Service, ask: Ask, shape: Shape) -> None:
        self._service = service
        self._ask = ask
        self._shape = shape
        self._jobs: list[Job] = []
        self._out: list[bytes] = []
        self._pieces: list[list[Piece]] = []
        self._counts: list[int] = []
        self._open = 0
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    def begin(self, prompts: list[tuple[list[int], Any]]) -> None:
        self._open = len(prompts)
        self._pieces = [[] for _ in prompts]
        self._counts = [0] * len(prompts)
        for index, (prompt, sampling) in enumerate(prompts):
            job = self._service.submit(
                index,
                prompt,
                sampling,
                incremental=self._ask.stream,
                per_token=self._ask.continuous_usage,
                emit=self._take,
            )
            self._jobs.append(job)

    def _take(self, piece: Piece | Exception) -> None:
        if isinstance(piece, Exception):
            self._error = piece
            self._open = 0
            self._abandon()
        else:
            self._put(piece)
            self._open -= bool(piece.finish)
        if self._ask.stream or self._open == 0:
            self._changed.set()

    def _put(self, piece: Piece) -> None:
        first = self._counts[piece.choice] == 0
        self._counts[piece.choice] = piece.tokens
        if not self._ask.stream:
            self._pieces[piece.choice].append(piece)
            return
        if first and self._ask.chat:
            self._out.append(self._shape.opening(piece.choice))
        self._out.append(self._shape.chunk(piece, sum(self._counts)))

    def _abandon(self) -> None:
        for job in self._jobs:
            self._service.abandon(job)

    async def collect(self, request: Request) -> Response:
        """The whole answer at once; a client that leaves gives its place back."""
        watch = asyncio.create_task(self._watch(request.receive))
        try:
            while self._open:
                self._changed.clear()
                await self._changed.wait()
        finally:
            watch.cancel()
            self._abandon()
        if self._error is not None:
            raise failure(self._error)
        return Response(self._shape.whole(self._pieces, sum(self._counts)), media_type="application/json")

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
                    await _send_error(send, failure(self._error))
                    return
                if not started:
                    started = True
                    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
                ended = self._open == 0
                body = b"".join(self._out)
                self._out.clear()
                if ended:
                    body += self._closing()
                await send({"type": "http.response.body", "body": body, "more_body": not ended})
                if ended:
                    return
        finally:
            watch.cancel()
            self._abandon()

    def _closing(self) -> bytes:
        if self._error is not None:
            return event(failure(self._error).body()) + DONE
        return self._shape.closing(sum(self._counts), self._ask.include_usage)


def failure(error: Exception) -> ApiError:
    return ApiError(500, f"generation failed: {type(error).__name__}: {error}")


async def _send_error(send: Send, error: ApiError) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": dumps(error.body())})
