"""The engine's loop in another process (`worker.py`), with the face of `EngineLoop` that a server needs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.clock import now_ns
from redline.engines.hf_server.fault import ApiError
from redline.engines.hf_server.load import LoadError
from redline.runtime.config import EngineConfig
from redline.runtime.loop import EngineStopped
from redline.runtime.params import Constraint
from redline.runtime.request import Finish, Matcher, Output, Request
from redline.runtime.roster import check
from redline.runtime.stats import Stats
from redline.runtime.step import Limits
from redline.runtime.wire import Wire

STOP_S = 5.0
FIELDS = ("id", "tokens", "sampling", "priority", "arrived_ns", "salt")
"""Of a request, what the engine's process makes it from."""


@dataclass
class RemoteRunner:
    """What the engine's process said of its runner."""

    limits: Limits
    told: dict[str, str]

    def resolved(self) -> dict[str, str]:
        return self.told


class RemoteLoop:
    """Started by `begin`. Once `start` was called, all its work is done on the event loop."""

    def __init__(self, child: subprocess.Popen[bytes], commands: Wire, events: Wire, runner: RemoteRunner) -> None:
        self.runner = runner
        self.on_step_end: Callable[[], None] | None = None
        self.progress = 0
        self.failure = ""
        self._child, self._commands, self._events = child, commands, events
        self._live: dict[str, Request] = {}
        self._stats = nothing_yet(runner.limits)
        self._stopping = False
        self._profiled: list[asyncio.Future[Path | None]] = []

    @classmethod
    def begin(cls, config: EngineConfig, progress: Callable[[str], None]) -> RemoteLoop:
        """Slow: the other process loads the model. LoadError says why it cannot."""
        pairs = [socket.socketpair() for _ in range(2)]
        theirs = [pairs[0][1], pairs[1][0]]
        for end in theirs:
            end.set_inheritable(True)
        numbers = [str(end.fileno()) for end in theirs]
        child = subprocess.Popen(
            [sys.executable, "-m", "redline.runtime.worker", *numbers],
            pass_fds=[end.fileno() for end in theirs],
            stdin=subprocess.DEVNULL,
        )
        for end in theirs:
            end.close()
        commands, events = Wire(pairs[0][0]), Wire(pairs[1][1])
        with contextlib.suppress(OSError):
            commands.send("config", config)
        for what, *rest in events.messages():
            if what == "phase":
                progress(rest[0])
            elif what == "refused":
                child.wait()
                raise LoadError(rest[0].strip())
            elif what == "ready":
                return cls(child, commands, events, RemoteRunner(*rest))
        raise LoadError(f"the engine's process {ended(child.wait())} while it started; its own words are above")

    def start(self) -> None:
        """On the event loop, which from now on hears the engine."""
        self._events.end.setblocking(False)
        asyncio.get_running_loop().add_reader(self._events.end.fileno(), self._hear)

    def submit(self, request: Request) -> None:
        """As `EngineLoop.submit`. A request with a grammar carries it as `Carried`."""
        check(request, self.runner.limits)
        request.arrived_ns = request.arrived_ns or now_ns()
        if self.failure or self._stopping:
            raise EngineStopped(self.failure or "the engine was stopped")
        self._live[request.id] = request
        constraint = request.matcher.constraint if isinstance(request.matcher, Carried) else None
        try:
            self._commands.send("submit", {name: getattr(request, name) for name in FIELDS}, constraint)
        except OSError as error:
            self._live.pop(request.id, None)
            raise EngineStopped("the engine's process is gone") from error

    def abort(self, request_id: str) -> None:
        if request_id in self._live:
            with contextlib.suppress(OSError):
                self._commands.send("abort", request_id)

    def stats(self) -> Stats:
        """As the engine told them last."""
        return self._stats

    def stop(self) -> None:
        """Ends the process, which has `STOP_S` for it."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._commands.send("stop")
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    async def profile(self, profiler: str, folder: Path | None) -> Path | None:
        """Begins a trace; with a folder, ends it and writes it there."""
        heard: asyncio.Future[Path | None] = asyncio.get_running_loop().create_future()
        try:
            self._commands.send("profile", profiler, folder)
        except OSError as error:
            raise ApiError(503, "the engine's process is gone") from error
        self._profiled.append(heard)
        return await heard

    def _hear(self) -> None:
        messages = self._events.ready()
        if messages is None:
            asyncio.get_running_loop().remove_reader(self._events.end.fileno())
            self._over()
            return
        for what, *rest in messages:
            if what == "step":
                self._take(*rest)
            elif what == "profiled" and self._profiled:
                self._traced(*rest)
        if messages and self.on_step_end is not None:
            self.on_step_end()

    def _traced(self, path: Path | None, status: int, error: str) -> None:
        waiting = self._profiled.pop(0)
        if waiting.done():
            return  # who asked has left
        if error:
            waiting.set_exception(ApiError(status, error))
        else:
            waiting.set_result(path)

    def _take(self, progress: int, told: list[tuple[Any, ...]], stats: Stats | None, failure: str) -> None:
        self.progress = progress
        self._stats = stats or self._stats
        self.failure = failure or self.failure
        for name, output, *times in told:
            request = self._live.get(name)
            if request is None:
                continue
            if times:
                request.scheduled_ns, request.first_token_ns, request.preempted = times
                made = Output(*output)
                if made.finish is not None:
                    del self._live[name]
            else:
                made = Output((output,))
            request.sink(made)

    def _over(self) -> None:
        """The process has ended: who still waits is told, and so is whoever looks."""
        if not self._stopping:
            code = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._child.wait(1.0)
            self.failure = self.failure or f"the engine's process {ended(code)}"
        finish = Finish.ABORT if self._stopping else Finish.ERROR
        for request in list(self._live.values()):
            request.sink(Output((), finish, error=self.failure))
        self._live.clear()
        while self._profiled:
            self._traced(None, 503, self.failure or "the engine was stopped")
        if self.on_step_end is not None:
            self.on_step_end()


@dataclass(frozen=True)
class Carried:
    """Stands for a matcher that the engine's process will compile."""

    constraint: Constraint


def carried(compile: Callable[[Constraint], Callable[[], Matcher]]) -> Callable[[Constraint], Callable[[], Any]]:
    """Compiles here, too: what cannot be is refused before it is sent."""

    def one(constraint: Constraint) -> Callable[[], Carried]:
        compile(constraint)
        return lambda: Carried(constraint)

    return one


def nothing_yet(limits: Limits) -> Stats:
    """Of an engine that has not said anything."""
    return Stats(
        running=0,
        waiting=0,
        in_flight=0,
        kv_usage=0.0,
        kv_pages=limits.pages - 1,
        kv_pages_kept=0,
        page_size=limits.page_size,
        max_seqs=limits.max_seqs,
        max_batched_tokens=limits.max_batched_tokens,
    )


def ended(code: int | None) -> str:
    if code is None:
        return "closed its side"
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def suits(device: str) -> bool:
    """Whether a process of its own pays: where steps are short and the host's time is in their way, on a GPU."""
    return device == "cuda" or (device == "auto" and os.path.exists("/dev/nvidiactl"))  # noqa: PTH110
