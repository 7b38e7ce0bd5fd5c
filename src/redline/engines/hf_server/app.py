"""The routes: OpenAI's completions and chat, vLLM's tokenize and detokenize, health, models, version, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import metrics
from .ask import Fields, parse, read_ids, read_messages
from .body import read_body
from .exchange import Exchange
from .fault import ApiError, bad
from .reply import Shape, dumps
from .service import LONG_TEXT, Service


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
    return Starlette(
        routes=[Route(path, function, methods=methods) for path, function, methods in table],
        exception_handlers=HANDLERS,
    )


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    answer = reply(error.body(), error.status)
    answer.raw_headers += error.headers
    return answer


async def _unexpected(_: Request, error: Exception) -> Response:
    return reply(ApiError(500, f"{type(error).__name__}: {error}").body(), 500)


HANDLERS: dict[Any, Any] = {ApiError: _api_error, Exception: _unexpected}


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
        body = await read_body(request, self.max_body)
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
        body = await read_body(request, self.max_body)
        self.service.check_model(Fields(body).text("model"))
        ids = self.service.encode(tuple(read_ids(body.get("tokens"), "tokens")), False)
        tokenizer = self.service.ready[0].tokenizer
        return reply({"prompt": tokenizer.decode(ids, clean_up_tokenization_spaces=False)})

    async def _answer(self, request: Request, *, chat: bool) -> Any:
        try:
            body = await read_body(request, self.max_body)
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
        exchange = Exchange(self.service.abandon, shape, stream=ask.stream, include_usage=ask.include_usage)
        submit = partial(self.service.submit, incremental=ask.stream, per_token=ask.continuous_usage)
        exchange.begin(
            [partial(submit, index, *pair) for index, pair in enumerate(zip(prompts, samplings, strict=True))]
        )
        return exchange if ask.stream else await exchange.collect(request)

    async def _off_loop(self, size: int, function: Callable[..., Any], *args: Any) -> Any:
        if size > LONG_TEXT:
            return await asyncio.to_thread(function, *args)
        return function(*args)
