"""redline's side of a load worker: start it, feed it, hear from it, notice its death.

Nothing here knows what a request means. Several workers are several of these.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict

import orjson

from redline.errors import EnvironmentFault, RedlineError
from redline.load.frames import (
    FrameReader,
    Kind,
    Outgoing,
    Phase,
    PhaseDone,
    RawStream,
    Target,
    Tick,
    pack,
    pack_bodies,
    pack_json,
    unpack_stream,
)
from redline.load.outbox import IN_MEMORY_MAX
from redline.load.worker import Worker

Heard = RawStream | Tick | PhaseDone
_READ = 1 << 20
_BODIES_PER_FRAME = 256


class LoadWorker:
    """A worker process, from construction to `close()`. `in_thread` runs the same code in a thread, for tests."""

    def __init__(self, target: Target, *, in_thread: bool = False, in_memory_max: int = IN_MEMORY_MAX) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._control = ours
        self._reader = FrameReader()
        self.ready = False
        self.open_files = 0
        self.short_slice = False
        self.process: subprocess.Popen[bytes] | None = None
        self._send(pack_json(Kind.TARGET, asdict(target)))
        if in_thread:
            self._thread = threading.Thread(target=_run_in_thread, args=(theirs, in_memory_max), daemon=True)
            self._thread.start()
            return
        command = [sys.executable, "-m", "redline.load.worker", str(theirs.fileno())]
        try:
            # a session of its own: Ctrl-C at the terminal is redline's to handle
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        finally:
            theirs.close()

    def __enter__(self) -> LoadWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._control.fileno()

    def _send(self, frame: bytes) -> None:
        try:
            self._control.sendall(frame)
        except OSError as error:
            raise self._dead() from error

    def feed(self, bodies: Iterable[Outgoing]) -> None:
        """Whole HTTP requests, to be sent in this order."""
        batch: list[Outgoing] = []
        for item in bodies:
            batch.append(item)
            if len(batch) == _BODIES_PER_FRAME:
                self._send(pack_bodies(batch))
                batch = []
        if batch:
            self._send(pack_bodies(batch))

    def start(self, phase: Phase) -> None:
        self._send(pack_json(Kind.PHASE, asdict(phase)))

    def cancel(self) -> None:
        """Cut off what is in flight; its records and the end of the phase follow at once."""
        self._send(pack(Kind.CANCEL, b""))

    def hear(self, timeout_s: float) -> list[Heard]:
        """What came within the time, one read at most. RedlineError when the worker is dead."""
        if not select.select([self._control], [], [], timeout_s)[0]:
            return []
        try:
            data = self._control.recv(_READ)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._dead()
        heard: list[Heard] = []
        for kind, payload in self._reader.feed(data):
            if kind is Kind.STREAM:
                heard.append(unpack_stream(payload))
            elif kind is Kind.TICK:
                heard.append(Tick(**orjson.loads(payload)))
            elif kind is Kind.PHASE_DONE:
                values = orjson.loads(payload)
                heard.append(PhaseDone(**{**values, "tick": Tick(**values["tick"])}))
            elif kind is Kind.READY:
                about = orjson.loads(payload)
                self.ready, self.open_files, self.short_slice = True, about["open_files"], about["short_slice"]
            elif kind is Kind.FAULT:
                raise RedlineError(
                    "the load worker failed", why=orjson.loads(payload)["traceback"], fix="this is a bug: report it"
                )
        return heard

    def _dead(self) -> RedlineError:
        code = self.process.wait(5) if self.process else None
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return EnvironmentFault(
            f"the load worker ended unexpectedly ({how})",
            why="signal 9 is usually the kernel's out-of-memory killer" if code == -9 else "",
            fix="what was measured until then is kept; run the point again",
        )

    def close(self) -> None:
        """Twice is fine."""
        if self._control.fileno() >= 0:
            self._control.close()
        if self.process is not None and self.process.poll() is None:
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _run_in_thread(control: socket.socket, in_memory_max: int) -> None:
    with control:
        try:
            Worker(control, in_memory_max).run()
        except ConnectionResetError:
            return
