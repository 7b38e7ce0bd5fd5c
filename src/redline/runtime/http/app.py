"""The routes: OpenAI's completions and chat, vLLM's tokenize and detokenize, health, models, version, metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from redline.engines.hf_server.app import HANDLERS, reply
from redline.engines.hf_server.ask import Fields, read_ids, read_messages
from redline.engines.hf_server.body import read_body
from redline.engines.hf_server.fault import bad
from redline.engines.hf_server.service import LONG_TEXT
from redline.runtime.http.ask import read
from redline.runtime.http.guard import Guard
from redline.runtime.http.profile import Profile
from redline.runtime.http.service import Service


def create_app(
    service: Service, *, max_body: int, version: dict[str, Any], key: str = "", profiles: Path | None = None
) -> Any:
    """`version` is what /version says; with `key` the API asks for it; `profiles` is the folder for traces."""
    routes = Routes(service, max_body, version, Profile(profiles))
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
        ("/start_profile", routes.start_profile, post),
        ("/stop_profile", routes.stop_profile, post),
    ]
    app = Starlette(
        routes=[Route(path, function, methods=methods) for path, function, methods in table],
        exception_handlers=HANDLERS,
    )
    return Guard(app, key) if key else app


class Routes:
    def __init__(self, service: Service, max_body: int, version: dict[str, Any], profile: Profile) -> None:
        self.service = service
        self.max_body = max_body
        self.versions = version
        self.profile = profile

    async def health(self, _: Request) -> Response:
        trouble = self.service.trouble()
        return reply({"status": trouble or "ok", "phase": self.service.phase}, 503 if trouble else 200)

    async def models(self, _: Request) -> Response:
        engine = self.service.ready
        card = {
            "id": self.service.name,
            "object": "model",
            "created": 0,
            "owned_by": "redline",
            "max_model_len": engine.max_model_len,
        }
        return reply({"object": "list", "data": [card]})

    async def version(self, _: Request) -> Response:
        return reply(self.versions)

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse(self.service.page(), media_type="text/plain; version=0.0.4")

    async def completions(self, request: Request) -> Any:
        return await self._answer(request, chat=False)

    async def chat(self, request: Request) -> Any:
        return await self._answer(request, chat=True)

    async def _answer(self, request: Request, *, chat: bool) -> Any:
        try:
            body = await read_body(request, self.max_body)
        except ClientDisconnect:
            return Response(status_code=499)
        service = self.service
        wish = read(body, chat=chat, defaults=service.defaults)
        service.check_model(wish.ask.model)
        service.admit(wish.params.n)
        exchange = service.open(wish, await service.plan(wish))
        return exchange if wish.ask.stream else await exchange.collect(request)

    async def tokenize(self, request: Request) -> Response:
        body = await read_body(request, self.max_body)
        engine, fields = self.service.ready, Fields(body)
        self.service.check_model(fields.text("model"))
        chat = "messages" in body
        if chat:
            options = {"add_generation_prompt": fields.flag("add_generation_prompt", True)}
            text = engine.tokenizer.template.render(read_messages(body), body.get("tools"), options)
        elif isinstance(body.get("prompt"), str):
            text = body["prompt"]
        else:
            raise bad("prompt must be text", "prompt")
        special = fields.flag("add_special_tokens", not chat)
        ids = (
            await asyncio.to_thread(engine.encode, text, special)
            if len(text) > LONG_TEXT
            else engine.encode(text, special)
        )
        return reply({"count": len(ids), "max_model_len": engine.max_model_len, "tokens": ids})

    async def detokenize(self, request: Request) -> Response:
        body = await read_body(request, self.max_body)
        self.service.check_model(Fields(body).text("model"))
        engine = self.service.ready
        ids = engine.encode(read_ids(body.get("tokens"), "tokens"))
        return reply({"prompt": engine.tokenizer.decode(ids, special=True)})

    async def start_profile(self, _: Request) -> Response:
        await self.profile.start()
        return reply({"status": "started"})

    async def stop_profile(self, _: Request) -> Response:
        return reply({"status": "stopped", "file": str(await self.profile.stop())})
