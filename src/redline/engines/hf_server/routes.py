"""What every server of ours answers, whatever computes: its engine fills the gaps."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .ask import Fields, read_ids
from .body import read_body
from .fault import ApiError, bad
from .reply import dumps

LONG_TEXT = 20_000
"""Characters beyond which tokenising would hold up the other streams."""


class Served(Protocol):
    name: str
    phase: str

    def trouble(self) -> str: ...

    def check_model(self, name: str) -> None: ...


def reply(value: Any, status: int = 200) -> Response:
    return Response(dumps(value), status, media_type="application/json")


class Routes(ABC):
    """Subclasses say how a prompt is rendered, encoded, decoded and answered."""

    owner = ""
    """`owned_by` of the model."""

    def __init__(self, service: Served, max_body: int, versions: Mapping[str, Any]) -> None:
        self.served = service
        self.max_body = max_body
        self.versions = versions

    @abstractmethod
    def max_model_len(self) -> int:
        """Raises 503 while there is no model."""

    @abstractmethod
    def page(self) -> str:
        """Metrics."""

    @abstractmethod
    def render(self, body: dict[str, Any], options: dict[str, Any]) -> str:
        """The text of a chat."""

    @abstractmethod
    def encode(self, prompt: str | tuple[int, ...], special: bool) -> list[int]: ...

    @abstractmethod
    def decode(self, ids: list[int]) -> str: ...

    @abstractmethod
    async def answer(self, request: Request, body: dict[str, Any], chat: bool) -> Any:
        """An ASGI response to a completion."""

    async def health(self, _: Request) -> Response:
        trouble = self.served.trouble()
        return reply({"status": trouble or "ok", "phase": self.served.phase}, 503 if trouble else 200)

    async def models(self, _: Request) -> Response:
        card = {
            "id": self.served.name,
            "object": "model",
            "created": 0,
            "owned_by": self.owner,
            "max_model_len": self.max_model_len(),
        }
        return reply({"object": "list", "data": [card]})

    async def version(self, _: Request) -> Response:
        return reply(self.versions)

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse(self.page(), media_type="text/plain; version=0.0.4")

    async def completions(self, request: Request) -> Any:
        return await self._answer(request, chat=False)

    async def chat(self, request: Request) -> Any:
        return await self._answer(request, chat=True)

    async def _answer(self, request: Request, *, chat: bool) -> Any:
        try:
            body = await read_body(request, self.max_body)
        except ClientDisconnect:
            return Response(status_code=499)
        return await self.answer(request, body, chat)

    async def tokenize(self, request: Request) -> Response:
        body = await read_body(request, self.max_body)
        fields = Fields(body)
        self.served.check_model(fields.text("model"))
        chat = "messages" in body
        special = fields.flag("add_special_tokens", not chat)
        if chat:
            text = self.render(body, {"add_generation_prompt": fields.flag("add_generation_prompt", True)})
        elif isinstance(body.get("prompt"), str):
            text = body["prompt"]
        else:
            raise bad("prompt must be text", "prompt")
        ids = await off_loop(len(text), self.encode, text, special)
        return reply({"count": len(ids), "max_model_len": self.max_model_len(), "tokens": ids})

    async def detokenize(self, request: Request) -> Response:
        body = await read_body(request, self.max_body)
        self.served.check_model(Fields(body).text("model"))
        ids = self.encode(tuple(read_ids(body.get("tokens"), "tokens")), False)
        return reply({"prompt": self.decode(ids)})


async def off_loop(size: int, function: Callable[..., Any], *args: Any) -> Any:
    """Beside the event loop when there is much to do."""
    return await asyncio.to_thread(function, *args) if size > LONG_TEXT else function(*args)


def application(routes: Routes, more: Mapping[str, Callable[[Request], Awaitable[Any]]] = {}) -> Starlette:
    """`more`: further POST routes."""
    get = {
        "/health": routes.health,
        "/v1/models": routes.models,
        "/version": routes.version,
        "/metrics": routes.metrics,
    }
    post = {
        "/v1/completions": routes.completions,
        "/v1/chat/completions": routes.chat,
        "/tokenize": routes.tokenize,
        "/detokenize": routes.detokenize,
        **more,
    }
    handlers: dict[Any, Any] = {ApiError: _api_error, Exception: _unexpected}
    table = [Route(path, function, methods=["GET"]) for path, function in get.items()]
    table += [Route(path, function, methods=["POST"]) for path, function in post.items()]
    return Starlette(routes=table, exception_handlers=handlers)


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    answer = reply(error.body(), error.status)
    answer.raw_headers += error.headers
    return answer


async def _unexpected(_: Request, error: Exception) -> Response:
    return reply(ApiError(500, f"{type(error).__name__}: {error}").body(), 500)
