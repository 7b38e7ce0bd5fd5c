"""A server's life: it listens at once, starts what it serves, says that it is ready, and ends with a reason.

Lines on stdout: `PREFIX-phase NAME` when a phase of the start-up begins, `PREFIX-ready {json}` once. Exit codes: 0
stopped, 1 could not start, 70 what it serves died.
"""

from __future__ import annotations

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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, ClassVar, TextIO, cast

from .load import LoadError

DIED = 70
GRACE_S = 3.0
LOOK_S = 0.2


class Life(ABC):
    """From the first phase to the exit code. Subclasses say what is started (`begin`), asked (`failure`), ended."""

    prefix: ClassVar[str]

    def __init__(self, server: Any) -> None:
        self.server = server
        self.code = 0
        self.phases: list[tuple[str, float]] = []

    @abstractmethod
    async def begin(self) -> dict[str, Any]:
        """Starts it; what came of it goes to the line that says ready. LoadError says why not."""

    @abstractmethod
    def failure(self) -> str:
        """Why it will never answer again; '' while it works."""

    @abstractmethod
    def tell(self, failure: str) -> None:
        """Says so to everybody who waits."""

    @abstractmethod
    def close(self) -> None: ...

    def look(self) -> None:  # noqa: B027  (a hook: there may be nothing to look at)
        """Called every `LOOK_S`."""

    def stop(self) -> None:
        """A signal came. A second one does not wait for open streams."""
        self.server.force_exit = self.server.should_exit
        self.server.should_exit = True

    def phase(self, name: str) -> None:
        """From any thread."""
        self.phases.append((name, time.monotonic()))
        say(f"{self.prefix}-phase {name}")

    async def run(self, listener: socket.socket) -> int:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
        self.phase("starting the server")
        start = asyncio.create_task(self._start(listener.getsockname()))
        watch = asyncio.create_task(self._watch())
        await self.server.serve(sockets=[listener])
        for task in (start, watch):
            task.cancel()
        self.close()
        return self.code

    async def _start(self, address: Any) -> None:
        try:
            report = await self.begin()
        except Exception as error:
            if not isinstance(error, LoadError):
                traceback.print_exc()
            self._end(1, f"{'' if isinstance(error, LoadError) else type(error).__name__ + ': '}{error}")
            return
        self.phase("ready")
        ends = [at for _, at in self.phases[1:]]
        lengths = {name: round((end - at) * 1000, 1) for (name, at), end in zip(self.phases, ends, strict=False)}
        whole = {"pid": os.getpid(), "port": address[1], **report, "phases_ms": lengths}
        say(f"{self.prefix}-ready {json.dumps(whole)}")

    async def _watch(self) -> None:
        """A dead generation ends the process, after its clients have heard of it."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
            if failure := self._failure():
                self.tell(failure)
                await asyncio.sleep(0.5)
                self._end(DIED, f"generation died: {failure}")
                return

    def _failure(self) -> str:
        try:
            return self.failure()
        except Exception as error:  # a watchman who trips must not leave the door open
            return f"its state cannot be read: {type(error).__name__}: {error}"

    def _end(self, code: int, message: str) -> None:
        self.code = code
        say(f"error: {' '.join(message.split())[:1000]}", sys.stderr)
        self.server.should_exit = True


def live(life: Life, listener: socket.socket) -> int:
    """Runs it, and ends the process."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(life.run(listener))
        sys.stdout.flush()
        sys.stderr.flush()
        # A thread may be loading weights or be inside a kernel; the event loop and the interpreter would wait for it.
        os._exit(code)


def event_loop_name() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


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


def versions_of(*names: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
