"""Start-up, readiness, and the end.

The process listens at once and answers 503 on /health until the model has generated something. Then it prints one
line to stdout, `redline-hf-ready {json}`, with the values that were resolved; before it, `redline-hf-phase NAME` when
a phase of the start-up begins. Exit codes: 0 stopped, 1 could not start, 70 the generation died.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from .ask import Sampling
from .flags import CONTINUOUS_NEEDS, parser, version_tuple
from .job import Job, Worker
from .life import DIED as DIED
from .life import Life, event_loop_name, live, refuse, say, versions_of, web_server
from .life import listen as listen
from .load import Loaded, LoadError, load
from .service import Service

WARM_UP_TOKENS = 4


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.compile and args.batching == "static":
        return refuse("--compile is not supported with --batching static: every batch size would compile anew")
    installed = versions().get("transformers", "")
    if args.batching == "continuous" and installed and version_tuple(installed) < CONTINUOUS_NEEDS:
        needed = ".".join(map(str, CONTINUOUS_NEEDS))
        return refuse(f"--batching continuous needs transformers {needed} or newer; {installed} is installed")
    try:
        listener = listen(args.host, args.port)
    except OSError as error:
        return refuse(f"cannot listen on {args.host}:{args.port}: {error.strerror}")
    try:
        life = prepare(args)
    except ImportError as error:
        return refuse(f"{error.name} is not installed here: pip install starlette uvicorn httptools")
    return live(life, listener)


def versions() -> dict[str, str]:
    return versions_of("transformers", "torch", "tokenizers", "starlette", "uvicorn")


def prepare(args: argparse.Namespace) -> HfLife:
    """Everything but the model."""
    from .app import create_app

    service = Service(args.served_model_name or args.model, args.stall_timeout_s, args.max_waiting)
    app = create_app(
        service,
        max_body=int(args.max_body_mib * 2**20),
        versions=versions(),
        profiles=Path(args.profile_dir) if args.profile_dir else None,
        profiler=args.profiler,
    )
    return HfLife(args, service, web_server(app))


class HfLife(Life):
    prefix = "redline-hf"

    def __init__(self, args: argparse.Namespace, service: Service, server: Any) -> None:
        super().__init__(server)
        self.args = args
        self.service = service
        self.load = load

    def phase(self, name: str) -> None:
        self.service.phase = name
        super().phase(name)

    async def begin(self) -> dict[str, Any]:
        loaded = await asyncio.to_thread(self.load, self.args, self.phase)
        self.phase("preparing the batching")
        worker = make_worker(loaded, self.args)
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(worker.start, lambda call: loop.call_soon_threadsafe(call) and None)
        loaded = fit(loaded, worker.capacity())
        self.service.loaded, self.service.worker = loaded, worker
        self.phase("warming up")
        await warm_up(worker, loaded, warm_up_sizes(self.args.batching, loaded.device))
        flags = {
            "batching": self.args.batching,
            "dtype": loaded.dtype,
            "device": loaded.device,
            "max-model-len": loaded.max_model_len,
            "random-weights": self.args.random_weights,
            "seed": self.args.seed,
            "threads": loaded.threads,
            "compile": self.args.compile,
            "event-loop": event_loop_name(),
            **worker.resolved(),
        }
        return {
            "model": self.service.name,
            "max_model_len": loaded.max_model_len,
            "versions": versions(),
            "flags": flags,
        }

    def failure(self) -> str:
        return self.service.worker.failure() if self.service.worker is not None else ""

    def tell(self, failure: str) -> None:
        for job in list(self.service.live.values()):
            job.receive([], "", RuntimeError(failure))

    def close(self) -> None:
        if self.service.worker is not None:
            self.service.worker.stop()


def fit(loaded: Loaded, capacity: int) -> Loaded:
    """No longer a context than the KV cache holds."""
    if not capacity or capacity >= loaded.max_model_len:
        return loaded
    say(f"warning: the KV cache holds {capacity} tokens: max-model-len is {capacity}, not {loaded.max_model_len}")
    return replace(loaded, max_model_len=capacity)


def make_worker(loaded: Loaded, args: argparse.Namespace) -> Any:
    if args.batching == "continuous":
        from .continuous import ContinuousWorker

        settings = continuous_settings(args)
        return ContinuousWorker(loaded, settings, compiled=args.compile, attention=args.attn_implementation)
    from .generate import GenerateWorker

    if args.compile and not loaded.device.startswith("cuda"):
        raise LoadError("--compile with --batching plain needs CUDA: transformers compiles generate() only there")
    size = 1 if args.batching == "plain" else args.max_batch_size or (64 if loaded.device.startswith("cuda") else 16)
    return GenerateWorker(loaded, max_batch=size, wait_ms=args.batch_wait_ms, static_cache=args.compile)


def continuous_settings(args: argparse.Namespace) -> dict[str, Any]:
    sizes = ("block-size", "num-blocks", "max-batch-tokens", "max-batch-size", "memory-share")
    others = ("scheduler", "cuda-graphs", "prefix-caching", "seed")
    return {name: getattr(args, name.replace("-", "_")) for name in (*sizes, *others)}


def warm_up_sizes(batching: str, device: str) -> tuple[int, ...]:
    if batching == "plain":
        return (1, 1)
    return (1, 4, 16, 64) if device.startswith("cuda") else (1, 4, 16)


async def warm_up(worker: Worker, loaded: Loaded, sizes: tuple[int, ...]) -> None:
    """Real answers for one request and for several at once: kernels load, caches and compilers fill.

    Raises when one fails or none comes.
    """
    for size in sizes:
        await asyncio.gather(*(_warm_up_one(worker, loaded, size, number) for number in range(size)))


async def _warm_up_one(worker: Worker, loaded: Loaded, size: int, number: int) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def receive(_tokens: list[int], finish: str, error: Exception | None) -> None:
        if error is not None and not done.done():
            done.set_exception(error)
        elif finish and not done.done():
            done.set_result(None)

    length = max(1, min(64, loaded.max_model_len - WARM_UP_TOKENS))
    prompt = [(7919 * (number + size) + place) % loaded.vocab_size for place in range(length)]
    limit = min(WARM_UP_TOKENS, loaded.max_model_len - length) or 1
    job = Job(
        id=f"warm-up-{size}-{number}",
        prompt=prompt,
        sampling=Sampling(max_tokens=limit, ignore_eos=True),
        stop_ids=frozenset(),
        eos_ids=frozenset(),
        incremental=True,
        receive=receive,
    )
    worker.submit(job)
    while not done.done():
        await asyncio.wait([done], timeout=0.5)
        if failure := worker.failure():
            raise RuntimeError(failure)
    done.result()
