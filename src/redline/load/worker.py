"""The load worker: its own process, so that nothing redline does (parsing, storing, drawing) delays a request.

    python -m redline.load.worker FD      started by redline only; FD is its end of a socket pair

It ends when redline ends: the kernel kills it with its parent, and the end of the socket pair ends it too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
import traceback

import orjson

from redline.load.frames import Arrivals, FrameReader, Kind, Phase, Target, pack_json, unpack_bodies
from redline.load.loop import LoadLoop
from redline.load.outbox import IN_MEMORY_MAX, Outbox
from redline.load.slice import ask_for_short_slice

_PR_SET_PDEATHSIG = 1
_READ = 1 << 20


class Worker:
    """Answers one parent over `control`. Also runs in a thread, for tests that want to look inside."""

    def __init__(
        self, control: socket.socket, in_memory_max: int = IN_MEMORY_MAX, *, short_slice: bool = False
    ) -> None:
        self._control = control
        self._reader = FrameReader()
        control.setblocking(True)
        self._early: list[tuple[Kind, bytes]] = []
        target = self._await_target()
        control.setblocking(False)
        self._outbox = Outbox(control, in_memory_max)
        self.loop = LoadLoop(target, self._outbox, control, self._on_control)
        for kind, payload in self._early:
            self._handle(kind, payload)
        about = {
            "pid": os.getpid(),
            "open_files": open_files_limit(),
            "short_slice": short_slice,
            "interpreted": self.loop.interpreted,
        }
        self._outbox.put(pack_json(Kind.READY, about))

    def _await_target(self) -> Target:
        while True:
            data = self._control.recv(_READ)
            if not data:
                raise ConnectionResetError("the parent is gone")
            frames = list(self._reader.feed(data))
            if frames:
                assert frames[0][0] is Kind.TARGET
                self._early = frames[1:]
                values = orjson.loads(frames[0][1])
                return Target(**{**values, "address": tuple(values["address"])})

    def _on_control(self) -> None:
        try:
            data = self._control.recv(_READ)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError("the parent is gone")
        for kind, payload in self._reader.feed(data):
            self._handle(kind, payload)

    def _handle(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.BODIES:
            self.loop.add_bodies(list(unpack_bodies(payload)))
        elif kind is Kind.PHASE:
            values = orjson.loads(payload)
            self.loop.start_phase(Phase(**{**values, "arrivals": Arrivals(values["arrivals"])}))
        elif kind is Kind.CANCEL:
            self.loop.cancel()

    def run(self) -> None:
        """Until the parent closes its end."""
        try:
            self.loop.run()
        except (ConnectionResetError, BrokenPipeError):
            return
        finally:
            self.loop.close()


def open_files_limit() -> int:
    """Raises the soft limit of open files to the hard one, and returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    open_files_limit()
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        worker = Worker(control, short_slice=ask_for_short_slice())
        gc.collect()
        gc.freeze()
        gc.disable()
        worker.run()
    except (ConnectionResetError, BrokenPipeError):
        sys.exit(0)
    except BaseException:
        control.setblocking(True)
        control.settimeout(1.0)
        control.sendall(pack_json(Kind.FAULT, {"traceback": traceback.format_exc()}))
        raise


if __name__ == "__main__":
    main()
