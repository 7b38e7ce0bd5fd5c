"""The routes: OpenAI's completions and chat, vLLM's tokenize and detokenize, health, models, version, metrics."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from . import metrics
from .ask import parse, read_messages
from .exchange import Exchange
from .profile import Profile, Tracer, Undo, annotate_forward
from .reply import Shape
from .routes import Routes, application, off_loop, reply
from .service import Service


def create_app(
    service: Service,
    *,
    max_body: int,
    versions: dict[str, str],
    profiles: Path | None = None,
    profiler: str = "torch",
) -> Starlette:
    """`profiles` is the folder for traces."""
    told = {"version": versions.get("transformers", ""), **versions}

    def annotate(profiler: str) -> Undo:
        return annotate_forward(service.ready[0].model, profiler)

    profile = Profile(profiles, Tracer("transformers", annotate), profiler)
    routes = HfRoutes(service, max_body, told, profile)
    return application(routes, {"/start_profile": routes.start_profile, "/stop_profile": routes.stop_profile})


class HfRoutes(Routes):
    owner = "transformers"

    def __init__(self, service: Service, max_body: int, versions: dict[str, str], profile: Profile) -> None:
        super().__init__(service, max_body, versions)
        self.service = service
        self.profile = profile

    def max_model_len(self) -> int:
        return self.service.ready[0].max_model_len

    def page(self) -> str:
        return metrics.render(self.service)

    def render(self, body: dict[str, Any], options: dict[str, Any]) -> str:
        return self.service.render(read_messages(body), options)

    def encode(self, prompt: str | tuple[int, ...], special: bool) -> list[int]:
        return self.service.encode(prompt, special)

    def decode(self, ids: list[int]) -> str:
        return str(self.service.ready[0].tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    async def answer(self, request: Request, body: dict[str, Any], chat: bool) -> Any:
        loaded, _ = self.service.ready
        ask = parse(body, chat=chat, defaults=loaded.sampling_defaults)
        self.service.check_model(ask.model)
        prompts = await off_loop(ask.size, self.service.prompts, ask)
        samplings = [self.service.sampling(ask, prompt) for prompt in prompts]
        self.service.admit(len(prompts))
        shape = Shape(
            chat=chat,
            model=self.service.name,
            prompt_tokens=sum(map(len, prompts)),
            decode=loaded.decode,
            usage=ask.usage,
        )
        exchange = Exchange(self.service.abandon, shape, stream=ask.stream, include_usage=ask.include_usage)
        submit = partial(self.service.submit, incremental=ask.stream, per_token=ask.continuous_usage)
        exchange.begin(
            [partial(submit, index, *pair) for index, pair in enumerate(zip(prompts, samplings, strict=True))]
        )
        return exchange if ask.stream else await exchange.collect(request)

    async def start_profile(self, _: Request) -> Response:
        await self.profile.start()
        return reply({"status": "started"})

    async def stop_profile(self, _: Request) -> Response:
        return reply({"status": "stopped", "file": await self.profile.stop()})
