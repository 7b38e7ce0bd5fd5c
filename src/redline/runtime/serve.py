"""`python -m redline.runtime.serve --model DIR …`: start-up, readiness, draining, and the end.

The process listens at once and answers 503 on /health until the model has generated something; see
`redline.engines.hf_server.life` for the lines that it prints and its exit codes. SIGTERM drains: streams go on, new
requests are answered 503, and after `--drain-s` what is left ends with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from redline import __version__
from redline.engines.hf_server.fault import ApiError
from redline.engines.hf_server.life import Life, event_loop_name, listen, live, refuse, versions_of, web_server
from redline.engines.hf_server.load import LoadError
from redline.engines.redline_flags import parser
from redline.errors import RedlineError
from redline.runtime import interpreter, remote
from redline.runtime.build import build, make_engine
from redline.runtime.config import EngineConfig, SpeculationConfig
from redline.runtime.engine import Engine
from redline.runtime.http.service import Service, Settings
from redline.runtime.http.spans import SpanSender

CLOSE_S = 1.0
WARM_UP_TOKENS = 4


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.otlp_traces_endpoint and not args.otlp_traces_endpoint.startswith("http://"):
        return refuse(f"--otlp-traces-endpoint: spans go to an http:// address, not to {args.otlp_traces_endpoint!r}")
    try:
        listener = listen(args.host, args.port)
    except OSError as error:
        return refuse(f"cannot listen on {args.host}:{args.port}: {error.strerror}")
    try:
        life = RedlineLife(args)
    except ImportError as error:
        return refuse(f"{error.name} is not installed here: pip install 'redline[engine]'")
    interpreter.begin()
    allow_files()
    return live(life, listener)


def allow_files() -> None:
    """A stream is an open file, and many systems allow a thousand of them until they are asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def configuration(args: argparse.Namespace) -> EngineConfig:
    """The engine's part of the command line; folders are found, or downloaded."""
    values = {one.name: getattr(args, one.name) for one in dataclasses.fields(EngineConfig)}
    values["model"] = located(args.model, args.revision)
    values["tokenizer"] = located(args.tokenizer, None) if args.tokenizer else None
    values["speculation"] = SpeculationConfig(**args.speculation) if args.speculation else None
    return EngineConfig(**values)


def located(name: str, revision: str | None) -> Path:
    """The folder of a model: a hub id's snapshot is downloaded where it is missing."""
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.safetensors", "*.jinja"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # its many kinds of error all mean the same here
        raise LoadError(f"{name} is no folder, and the hub does not give it: {error}") from error


class RedlineLife(Life):
    prefix = "redline-engine"

    def __init__(self, args: argparse.Namespace) -> None:

        super().__init__(None)
        self.args = args
        self.versions: dict[str, Any] = {"version": __version__, "engine": "redline", "flags": {}}
        self.build = build
        self.service: Service
        self._drain_until = 0.0

    async def run(self, listener: Any) -> int:
        from redline.runtime.http.app import create_app

        args = self.args
        self.service = Service(
            Settings(
                name=args.served_model_name or args.model,
                max_waiting=args.max_waiting,
                stall_s=args.stall_s,
                flush_s=args.flush_ms / 1000,
                alone=args.alone,
                own_defaults=args.generation_config == "auto",
            )
        )
        if args.otlp_traces_endpoint:
            self.service.spans = SpanSender(args.otlp_traces_endpoint, self.service.name)
        app = create_app(
            self.service,
            max_body=args.max_body_bytes,
            version=self.versions,
            key=os.environ.get(args.api_key_env, ""),
            profiles=Path(args.profile_dir) if args.profile_dir else None,
            profiler=args.profiler,
        )
        self.server = web_server(app)
        return await super().run(listener)

    def phase(self, name: str) -> None:
        self.service.phase = name
        super().phase(name)

    async def begin(self) -> dict[str, Any]:
        try:
            engine = await asyncio.to_thread(self._load)
        except RedlineError as error:
            raise LoadError(str(error)) from error
        self.service.use(engine)
        engine.loop.start()
        self.phase("warming up")
        await asyncio.to_thread(warm_up, engine)
        interpreter.keep_what_is_there()
        self.versions["flags"] = self._flags(engine)
        return {
            "model": self.service.name,
            "max_model_len": engine.max_model_len,
            "versions": versions_of("torch", "tokenizers", "triton", "flashinfer-python", "starlette", "uvicorn"),
            "flags": self.versions["flags"],
        }

    def _load(self) -> Engine:
        config = configuration(self.args)
        if self.args.processes == 2 or (not self.args.processes and remote.suits(config.device)):
            engine = make_engine(remote.RemoteLoop.begin(config, self.phase), config)
            engine.compile = remote.carried(engine.compile) if engine.compile is not None else None
            return engine
        loop = self.build(config, self.phase)
        self.phase("reading the tokenizer")
        return make_engine(loop, config)

    def _flags(self, engine: Engine) -> dict[str, Any]:
        """As given, with what the engine chose over it."""
        given = {
            one.name.replace("_", "-"): getattr(self.args, one.name)
            for one in dataclasses.fields(EngineConfig)
            if one.name not in ("model", "tokenizer", "speculation")
        }
        given = {name: value for name, value in given.items() if value is not None}
        speculation, limits = self.args.speculation, engine.limits
        return {
            **given,
            "speculation": speculation["method"] if speculation else "none",
            "max-model-len": limits.max_model_len,
            "max-num-seqs": limits.max_seqs,
            "max-num-batched-tokens": limits.max_batched_tokens,
            "page-size": limits.page_size,
            "kv-cache-tokens": (limits.pages - 1) * limits.page_size,
            "event-loop": event_loop_name(),
            **{name.replace("_", "-"): value for name, value in engine.loop.runner.resolved().items()},
        }

    def failure(self) -> str:
        return self.service.failure()

    def tell(self, failure: str) -> None:
        self.service.fail_all(ApiError(500, f"generation failed: {failure}"))

    def look(self) -> None:
        self.service.look()
        if not self.service.draining:
            return
        if time.monotonic() > self._drain_until:
            self.service.fail_all(ApiError(503, "the server was stopped before this answer was complete"))
        if not self.service.live and not self.service.pace.open:
            self.server.should_exit = True

    def stop(self) -> None:
        """The first signal drains, the second does not wait."""
        if self.service.draining:
            super().stop()
        self.service.draining = True
        self._drain_until = time.monotonic() + self.args.drain_s

    def close(self) -> None:
        """A hung engine is not waited for: the process ends anyway."""
        if self.service.engine is not None:
            ending = threading.Thread(target=self.service.engine.loop.stop, daemon=True)
            ending.start()
            ending.join(CLOSE_S)
        if self.service.spans is not None:
            self.service.spans.close()


def warm_up(engine: Engine) -> None:
    """Real answers, alone and together: kernels load and caches fill. Raises when one fails or none comes."""
    from redline.runtime.api import LLM, SamplingParams

    length = max(1, min(64, engine.max_model_len - WARM_UP_TOKENS))
    params = SamplingParams(max_tokens=min(WARM_UP_TOKENS, engine.max_model_len - length) or 1, ignore_eos=True)
    for size in (1, 4):
        prompts = [
            [(7919 * (number + size) + place) % engine.tokenizer.vocab_size for place in range(length)]
            for number in range(size)
        ]
        LLM.around(engine).generate(list(prompts), params)


if __name__ == "__main__":
    sys.exit(main())
