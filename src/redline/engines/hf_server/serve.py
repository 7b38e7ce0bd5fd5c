"""Start-up, readiness, and the end.

The process listens at once and answers 503 on /health until the model has generated something. Then it prints one
line to stdout, `redline-hf-ready {json}`, with the values that were resolved; before it, `redline-hf-phase NAME` when
a phase of the start-up begins. Exit codes: 0 stopped, 1 could not start, 70 the generation died.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from typing import Any, TextIO, cast

from .ask import Sampling
from .flags import CONTINUOUS_NEEDS, parser, version_tuple
from .job import Job, Worker
from .load import Loaded, LoadError, load
from .service import Service

READY = "redline-hf-ready"
PHASE = "redline-hf-phase"
DIED = 70
GRACE_S = 3.0
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
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(life.run(listener))
        sys.stdout.flush()
        sys.stderr.flush()
        # A thread may be loading weights or be inside a kernel; the event loop and the interpreter would wait for it.
        os._exit(code)


def prepare(args: argparse.Namespace) -> Life:
    """Everything but the model."""
    from .app import create_app

    service = Service(args.served_model_name or args.model, args.stall_timeout_s, args.max_waiting)

    return Life(
        args, service, web_server(create_app(service, max_body=int(args.max_body_mib * 2**20), versions=versions()))
    )


def web_server(app: Any) -> Any:
    """uvicorn's, without a log of requests. Its owner handles the signals."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """uvicorn would raise the signal again after a good end, and so make it look like a death."""
            yield

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(GRACE_S),
    )
    return Server(config)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, as uvicorn itself would choose."""
    try:
        return cast("Callable[[], asyncio.AbstractEventLoop]", importlib.import_module("uvloop").new_event_loop)
    except ImportError:
        return None


def say(line: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    stream.write(line + "\n")
    stream.flush()


def refuse(message: str) -> int:
    say(f"error: {message}", sys.stderr)
    return 1


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only on sockets that name their protocol; with it on, and the client's delayed
    # acknowledgement, every first chunk would come 40 ms late
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(2048)
    return listener


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("transformers", "torch", "tokenizers", "starlette", "uvicorn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Life:
    """From the first phase to the exit code."""

    def __init__(self, args: argparse.Namespace, service: Service, server: Any) -> None:
        self.args = args
        self.service = service
        self.server = server
        self.load = load
        self.code = 0
        self.phases: list[tuple[str, float]] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    def phase(self, name: str) -> None:
        """From any thread."""
        self.phases.append((name, time.monotonic()))
        self.service.phase = name
        say(f"{PHASE} {name}")

    async def run(self, listener: socket.socket) -> int:
        self.loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.loop.add_signal_handler(number, self._stop)
        self.phase("starting the server")
        start = asyncio.create_task(self._start(listener.getsockname()))
        watch = asyncio.create_task(self._watch())
        await self.server.serve(sockets=[listener])
        for task in (start, watch):
            task.cancel()
        if self.service.worker is not None:
            self.service.worker.stop()
        return self.code

    async def _start(self, address: Any) -> None:
        try:
            loaded = await asyncio.to_thread(self.load, self.args, self.phase)
            self.phase("preparing the batching")
            worker = make_worker(loaded, self.args)
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(worker.start, lambda call: loop.call_soon_threadsafe(call) and None)
            loaded = fit(loaded, worker.capacity())
            self.service.loaded, self.service.worker = loaded, worker
            self.phase("warming up")
            await warm_up(worker, loaded, warm_up_sizes(self.args.batching, loaded.device))
        except Exception as error:
            if not isinstance(error, LoadError):
                traceback.print_exc()
            self._end(1, f"{'' if isinstance(error, LoadError) else type(error).__name__ + ': '}{error}")
            return
        self.phase("ready")
        say(f"{READY} {json.dumps(self._report(loaded, worker, address))}")

    def _report(self, loaded: Loaded, worker: Worker, address: Any) -> dict[str, Any]:
        ends = [at for _, at in self.phases[1:]]
        lengths = {name: round((end - at) * 1000, 1) for (name, at), end in zip(self.phases, ends, strict=False)}
        flags = {
            "batching": self.args.batching,
            "dtype": loaded.dtype,
            "device": loaded.device,
            "max-model-len": loaded.max_model_len,
            "random-weights": self.args.random_weights,
            "seed": self.args.seed,
            "threads": loaded.threads,
            "compile": self.args.compile,
            "event-loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
            **worker.resolved(),
        }
        return {
            "pid": os.getpid(),
            "port": address[1],
            "model": self.service.name,
            "max_model_len": loaded.max_model_len,
            "versions": versions(),
            "flags": flags,
            "phases_ms": lengths,
        }

    async def _watch(self) -> None:
        """A dead generation ends the process, after its clients have heard of it."""
        while True:
            await asyncio.sleep(0.2)
            if failure := self._failure():
                for job in list(self.service.live.values()):
                    job.receive([], "", RuntimeError(failure))
                await asyncio.sleep(0.5)
                self._end(DIED, f"generation died: {failure}")
                return

    def _failure(self) -> str:
        try:
            return self.service.worker.failure() if self.service.worker is not None else ""
        except Exception as error:  # a watchman who trips must not leave the door open
            return f"its state cannot be read: {type(error).__name__}: {error}"

    def _stop(self) -> None:
        """A second signal does not wait for open streams."""
        self.server.force_exit = self.server.should_exit
        self.server.should_exit = True

    def _end(self, code: int, message: str) -> None:
        self.code = code
        say(f"error: {' '.join(message.split())[:1000]}", sys.stderr)
        self.server.should_exit = True


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
