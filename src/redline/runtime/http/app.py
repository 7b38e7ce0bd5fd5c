"""The routes that every server of ours has, answered by redline's engine, and those of the profiler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redline.engines.hf_server.ask import read_messages
from redline.engines.hf_server.profile import Profile, Tracer, Undo
from redline.engines.hf_server.routes import Routes, application, reply
from redline.runtime.http.ask import read
from redline.runtime.http.guard import Guard
from redline.runtime.http.profile import annotate_steps
from redline.runtime.http.service import Service
from redline.runtime.loop import EngineLoop


def create_app(
    service: Service,
    *,
    max_body: int,
    version: dict[str, Any],
    key: str = "",
    profiles: Path | None = None,
    profiler: str = "torch",
) -> Any:
    """`version` is what /version says; with `key` the API asks for it; `profiles` is the folder for traces."""

    def annotate(profiler: str) -> Undo:
        loop = service.ready.loop
        assert isinstance(loop, EngineLoop)  # one in another process is annotated there
        return annotate_steps(loop, profiler)

    profile = Profile(profiles, Tracer("redline", annotate), profiler, service.elsewhere)
    routes = EngineRoutes(service, max_body, version, profile)
    app = application(routes, {"/start_profile": routes.start_profile, "/stop_profile": routes.stop_profile})
    return Guard(app, key) if key else app


class EngineRoutes(Routes):
    owner = "redline"

    def __init__(self, service: Service, max_body: int, version: dict[str, Any], profile: Profile) -> None:
        super().__init__(service, max_body, version)
        self.service = service
        self.profile = profile

    def max_model_len(self) -> int:
        return self.service.ready.max_model_len

    def page(self) -> str:
        return self.service.page()

    def render(self, body: dict[str, Any], options: dict[str, Any]) -> str:
        return self.service.ready.tokenizer.template.render(read_messages(body), body.get("tools"), options)

    def encode(self, prompt: str | tuple[int, ...], special: bool) -> list[int]:
        return self.service.ready.encode(prompt, special)

    def decode(self, ids: list[int]) -> str:
        return self.service.ready.tokenizer.decode(ids, special=True)

    async def answer(self, request: Request, body: dict[str, Any], chat: bool) -> Any:
        service = self.service
        wish = read(body, chat=chat, defaults=service.defaults)
        if service.spans is not None:
            wish = replace(wish, trace=request.headers.get("traceparent", ""))
        service.check_model(wish.ask.model)
        service.admit(wish.params.n)
        exchange = service.open(wish, await service.plan(wish))
        return exchange if wish.ask.stream else await exchange.collect(request)

    async def start_profile(self, _: Request) -> Response:
        await self.profile.start()
        return reply({"status": "started"})

    async def stop_profile(self, _: Request) -> Response:
        return reply({"status": "stopped", "file": await self.profile.stop()})
