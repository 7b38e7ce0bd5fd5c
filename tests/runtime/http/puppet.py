"""A runner that says what it is told to, as slowly as it is told to; and a server around it, in this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redline.engines.hf_server import life as lives
from redline.engines.redline_flags import parser
from redline.runtime.config import EngineConfig
from redline.runtime.loop import EngineLoop
from redline.runtime.request import Request, TokenLogprob
from redline.runtime.serve import RedlineLife
from redline.runtime.step import Launched, Limits, RunnerBroken, Sampled, Step
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from tests.engines.hf_server.live import NAME, Live, wait_for

FOLDER = resolve_model(ModelSpec(id="bundled:tiny")).path
assert FOLDER is not None
WORDS = tuple(range(300, 340))
"""Tokens of the bundled tokenizer that the puppet says in turn."""


@dataclass
class Told:
    step: Step


class Puppet:
    """Token n of every answer is `words[n % len(words)]`, whatever was asked."""

    def __init__(self, *, step_s: float = 0.0, max_seqs: int = 64, words: Sequence[int] = WORDS) -> None:
        self.limits = Limits(
            pages=4097, page_size=16, max_seqs=max_seqs, max_batched_tokens=4096, max_model_len=4096, vocab_size=4096
        )
        self.step_s = step_s
        self.words = words
        self.go_on = threading.Event()
        self.go_on.set()
        self.broken = ""
        self.wide: list[int] = []

    def launch(self, step: Step) -> Told:
        return Told(step)

    def collect(self, launched: Launched) -> list[Sampled]:
        self.go_on.wait(60)
        time.sleep(self.step_s)
        if self.broken:
            raise RunnerBroken(self.broken)
        self.wide.append(len(launched.step.chunks))
        return [self.sampled(chunk.request) for chunk in launched.step.chunks if chunk.samples]

    def sampled(self, request: Request) -> Sampled:
        token = self.words[request.generated % len(self.words)]
        told = [TokenLogprob(token, -0.5, ((token, -0.5),))] if request.sampling.logprobs is not None else []
        return Sampled(request, [token], told)

    def release(self, request: Request) -> None:
        pass

    def resolved(self) -> dict[str, str]:
        return {"device": "strings"}

    def close(self) -> None:
        pass


class Puppets(Live):
    """`with Puppets(puppet, "--max-waiting", "3") as server: server.ask(prompt="x")`."""

    def __init__(self, puppet: Puppet, *flags: str) -> None:
        argv = ["--model", str(FOLDER), "--served-model-name", NAME, "--port", "0", *flags]
        self.puppet = puppet
        self.listener = lives.listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.life: Any = RedlineLife(parser().parse_args(argv))
        self.life.build = self._build
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _build(self, config: EngineConfig, progress: Any) -> EngineLoop:
        progress("pulling strings")
        return EngineLoop(self.puppet, config=config)

    @property
    def service(self) -> Any:
        return self.life.service

    @service.setter
    def service(self, _: Any) -> None:
        raise AttributeError

    def _run(self) -> None:
        self.code = asyncio.run(self.life.run(self.listener))

    def __enter__(self) -> Puppets:
        self._thread.start()
        wait_for(lambda: self.phase == "ready" or not self._thread.is_alive(), 30)
        assert self._thread.is_alive(), "the server ended while starting"
        return self

    @property
    def phase(self) -> str:
        service = getattr(self.life, "service", None)
        return "" if service is None else str(service.phase)

    def stop(self) -> None:
        self.puppet.go_on.set()
        self.life.server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive()

    def series(self, name: str, **labels: str) -> float:
        """The sum of a series, from /metrics."""
        total = 0.0
        for line in self.request("GET", "/metrics").body.splitlines():
            if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.split()[-1])
        return total
