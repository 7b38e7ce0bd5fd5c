"""The engine in a process of its own, for a server on a GPU: `python -m redline.runtime.worker COMMANDS EVENTS`, two
inherited sockets.

A step of a small model takes a millisecond, and with both in one process the server's event loop takes the interpreter
from the engine's thread for longer than that. Here the engine's thread has it for itself, but for a thread that waits
for commands. What a step gave travels as one message.

Commands   config · submit · abort · profile · stop          Events   phase · ready · refused · step · profiled
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from redline.engines.hf_server.fault import ApiError
from redline.engines.hf_server.profile import Tracer
from redline.errors import RedlineError
from redline.runtime import interpreter
from redline.runtime.build import build, grammars_of
from redline.runtime.config import EngineConfig
from redline.runtime.http.profile import annotate_steps
from redline.runtime.loop import EngineLoop
from redline.runtime.params import Constraint
from redline.runtime.request import Finish, Matcher, Output, Request
from redline.runtime.wire import Wire

STATS_S = 0.02
"""The server hears the engine's counters so often, and whenever nothing is left to do."""


def main(commands: int, events: int) -> int:
    # Ctrl-C goes to every process of a terminal, and a stop may: the server drains, and this one ends with it
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    inward, outward = (Wire(socket.socket(fileno=fd)) for fd in (commands, events))
    messages = inward.messages()
    first = next(messages, None)
    if first is None:
        return 0
    config: EngineConfig = first[1]
    interpreter.begin()
    try:
        loop = build(config, partial(outward.send, "phase"))
    except RedlineError as error:
        outward.send("refused", str(error))
        return 1
    except BaseException:
        outward.send("refused", traceback.format_exc())
        raise
    outward.send("ready", loop.runner.limits, loop.runner.resolved())
    interpreter.keep_what_is_there()
    served = Served(loop, config, outward)
    loop.start()
    for message in messages:
        if message[0] == "stop":
            break
        served.obey(*message)
    # The server asked for it, or is gone. A step that hangs is waited for as long as `stop` does.
    loop.stop()
    sys.stdout.flush()
    os._exit(0)


class Served:
    """The loop as the server's process sees it. `obey` belongs to the thread of commands, the rest to the engine's."""

    def __init__(self, loop: EngineLoop, config: EngineConfig, events: Wire) -> None:
        self.loop, self.events = loop, events
        self._told: list[tuple[Any, ...]] = []
        self._stats_at = 0.0
        self._compile = grammars_of(loop, config)
        # a large schema takes a while to compile, and a trace to write: neither may hold up other commands
        self._compiling = ThreadPoolExecutor(1, thread_name_prefix="redline-grammar")
        self._tracing = ThreadPoolExecutor(1, thread_name_prefix="redline-profile")
        self._lock = threading.Lock()
        self._coming: dict[str, bool] = {}
        """Requests whose grammar is being compiled, and whether they were aborted meanwhile."""
        self._tracer = Tracer("redline", partial(annotate_steps, loop))
        loop.on_step_end = self.flush

    def obey(self, what: str, *rest: Any) -> None:
        if what == "submit":
            constraint: Constraint | None = rest[1]
            if constraint is None:
                self._submit(rest[0], None)
            else:
                self._coming[rest[0]["id"]] = False
                self._compiling.submit(self._constrain, rest[0], constraint)
        elif what == "abort":
            self._abort(rest[0])
        elif what == "profile":
            self._tracing.submit(self._profile, *rest)

    def _abort(self, request: str) -> None:
        with self._lock:
            if request in self._coming:
                self._coming[request] = True
            else:
                self.loop.abort(request)

    def _constrain(self, fields: dict[str, Any], constraint: Constraint) -> None:
        request = fields["id"]
        matcher: Matcher | None = None
        failed = ""
        try:
            if self._compile is None:
                raise RuntimeError("structured outputs need llguidance")
            matcher = None if self._coming[request] else self._compile(constraint)()
        except Exception as error:  # the server compiled the same; whatever differs here ends this request alone
            failed = str(error)
        with self._lock:  # an abort comes before this, or finds the request in the loop
            aborted = self._coming.pop(request)
            if not aborted and not failed:
                self._submit(fields, matcher)
        if aborted or failed:
            self._end(request, Finish.ABORT if aborted else Finish.ERROR, "" if aborted else failed)

    def _submit(self, fields: dict[str, Any], matcher: Matcher | None) -> None:
        request = Request(**fields, sink=lambda output: self._tell(request, output), matcher=matcher)
        try:
            self.loop.submit(request)
        except RedlineError as error:
            self._end(request.id, Finish.ERROR, str(error))

    def _end(self, request: str, finish: Finish, why: str) -> None:
        """Of a request that the loop never had."""
        output = tuple(Output((), finish, error=why))
        self.events.send("step", self.loop.progress, [(request, output, 0, 0, 0)], None, "")

    def _tell(self, request: Request, output: Output) -> None:
        tokens = output.tokens
        if len(tokens) == 1 and request.generated > 1 and output[1:] == PLAIN:
            self._told.append((request.id, tokens[0]))  # nearly all of them
        else:
            self._told.append(
                (request.id, tuple(output), request.scheduled_ns, request.first_token_ns, request.preempted)
            )

    def flush(self) -> None:
        """At the end of each step that told somebody something, and of the loop."""
        told, loop = self._told, self.loop
        self._told = []
        now, stats = time.monotonic(), None
        if now - self._stats_at > STATS_S or not loop.scheduler.unfinished or loop.failure:
            self._stats_at, stats = now, loop.stats()
        self.events.send("step", loop.progress, told, stats, loop.failure)

    def _profile(self, profiler: str, folder: Path | None) -> None:
        try:
            path = None
            if folder is None:
                self._tracer.start(profiler)
            else:
                path = self._tracer.stop(folder)
            self.events.send("profiled", path, 0, "")
        except ApiError as error:
            self.events.send("profiled", None, error.status, str(error))
        except Exception as error:
            self.events.send("profiled", None, 500, f"{type(error).__name__}: {error}")


PLAIN = Output(())[1:]
"""What an output of a token alone has besides it."""


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
