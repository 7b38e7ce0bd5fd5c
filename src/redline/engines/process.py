"""A supervised engine process. `launch.py` builds on it; an adapter rarely needs more than `launch.launch`.

    process = spawn(["python", "-m", "server"], env=os.environ | {...}, log=artifacts / "engine.log")
    process.pid            first process of the engine: leader of its own session, deaf to our terminal's Ctrl-C
    process.running()      True while it, and whatever was named to `watch`, runs
    process.exit_status()  None while the first process runs, then its code (negative: the signal that killed it)
    process.tree()         every living process of the engine, first one first
    process.watch(pids)    these must live too (an engine core beside its API server)
    process.log_tail(30)   last lines of stdout and stderr
    process.stop(15.0)     SIGTERM, 15 s grace, SIGKILL; returns when all are gone; twice is fine, from any thread too

When redline ends in any way, `kill -9` included, `guard.py` ends every process of the tree. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from redline.engines import guard, log
from redline.engines.guard import Proc
from redline.errors import EnvironmentFault, Unsupported

GUARD_START_S = 20.0
POLL_S = 0.02


@dataclass(frozen=True)
class Stopped:
    """How a stop went: the exit code of the first process, and the pids that only SIGKILL ended or nothing could."""

    exit_status: int | None
    killed: tuple[int, ...] = ()
    stuck: tuple[int, ...] = ()


class ManagedProcess:
    """One engine tree under one guard. Made by `spawn`."""

    def __init__(self, guard_process: subprocess.Popen[bytes], link: socket.socket, log_path: Path) -> None:
        self.pid = 0
        self.log = log_path
        self._guard = guard_process
        self._link = link
        self._exit: int | None = None
        self._killed: tuple[int, ...] = ()
        self._stuck: tuple[int, ...] = ()
        self._gone = False
        self._failure: tuple[int, str] | None = None
        self._watched: tuple[Proc, ...] = ()
        self._known: tuple[Proc, ...] = ()

    # Each message is one datagram and sets its own fields, so two threads, or a signal handler inside this method,
    # may drain at once without a lock.
    def _drain(self) -> None:
        while True:
            try:
                message = self._link.recv(65536, socket.MSG_DONTWAIT)
            except OSError:
                return
            if not message:
                return
            self._apply(json.loads(message))

    def _apply(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "started":
                self.pid = event["pid"]
            case "failed":
                self._failure = (event["errno"], event["text"])
            case "exit":
                self._exit = event["code"]
            case "stuck":
                self._stuck = tuple(event["pids"])
            case "gone":
                self._killed, self._gone = tuple(event["killed"]), True

    def _guard_alive(self) -> bool:
        return self._guard.poll() is None

    def exit_status(self) -> int | None:
        """None while the first process runs; its exit code, or minus the signal; -9 when its guard was killed."""
        self._drain()
        if self._exit is None and not self._guard_alive():
            self._drain()
            if self._exit is None:
                self._exit = -signal.SIGKILL
        return self._exit

    def settled_exit_status(self, patience_s: float = 1.0) -> int | None:
        """Like `exit_status`, of a process that was just seen dead: how it ended is known once its guard has told."""
        give_up = time.monotonic() + patience_s
        while (status := self.exit_status()) is None and time.monotonic() < give_up:
            first = guard.read_proc(self.pid)
            if first is not None and not first.dead:
                break
            time.sleep(POLL_S)
        return status

    def running(self) -> bool:
        if self.exit_status() is not None:
            return False
        return not self.missing()

    def missing(self) -> tuple[int, ...]:
        """Watched processes that ended."""
        return tuple(proc.pid for proc in self._watched if not _lives(proc))

    def watch(self, pids: Iterable[int]) -> None:
        """From now on `running` needs these processes too."""
        self._watched = tuple(proc for pid in pids if (proc := guard.read_proc(pid)) is not None)

    def tree(self) -> tuple[Proc, ...]:
        """Every living process that the engine consists of now, parents first."""
        if self._guard_alive():
            self._known = tuple(proc for proc in guard.descendants(self._guard.pid) if not proc.dead)
        return self._known

    def log_tail(self, lines: int = 40) -> str:
        return log.tail(self.log, lines)

    def stop(self, grace_s: float = 15.0) -> Stopped:
        """Ends every process of the tree and waits until they are gone; a later call with less grace hurries it."""
        with contextlib.suppress(OSError):
            self._link.send(json.dumps({"stop": grace_s}).encode(), socket.MSG_DONTWAIT)
        give_up = time.monotonic() + grace_s + guard.SWEEP_GRACE_S + guard.KILL_PATIENCE_S + 5.0
        while self._guard_alive() and not self._stuck and time.monotonic() < give_up:
            self._drain()
            time.sleep(POLL_S)
        self._drain()
        if not self._gone and not self._stuck:
            self._end_without_guard()
        if not self._guard_alive():
            self._link.close()
        return Stopped(self.exit_status(), self._killed, self._stuck)

    def _end_without_guard(self) -> None:
        """Somebody killed the guard, or it hangs: end what was last seen below it."""
        known = self.tree()
        with contextlib.suppress(ProcessLookupError):
            self._guard.kill()
        for proc in known:
            guard.send_signal(proc, signal.SIGKILL)
        self._guard.wait()
        patience = time.monotonic() + guard.KILL_PATIENCE_S
        while (left := [proc.pid for proc in known if _lives(proc)]) and time.monotonic() < patience:
            time.sleep(POLL_S)
        self._killed, self._stuck = tuple(proc.pid for proc in known), tuple(left)

    def __enter__(self) -> ManagedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _lives(proc: Proc) -> bool:
    now = guard.read_proc(proc.pid)
    return now is not None and now.start == proc.start and not now.dead


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    orphan_grace_s: float = 5.0,
) -> ManagedProcess:
    """Starts `argv` with exactly `env`; returns once it was executed. stdout and stderr are appended to `log`.

    `orphan_grace_s`: what the engine gets between SIGTERM and SIGKILL when redline is gone. EnvironmentFault when the
    command cannot be executed.
    """
    if not sys.platform.startswith("linux"):
        raise Unsupported("redline supervises engines on Linux only", fix="start the server yourself and use kind: url")
    order = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(cwd or ""),
        "owner": os.getpid(),
        "orphan_grace_s": orphan_grace_s,
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as stdin, log.open("ab") as out:
        stdin.write(json.dumps(order).encode())
        stdin.seek(0)
        guard_process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(theirs.fileno())],
            stdin=stdin,
            stdout=out,
            stderr=out,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    process = ManagedProcess(guard_process, ours, log)
    _wait_for_start(process, argv[0])
    return process


def _wait_for_start(process: ManagedProcess, program: str) -> None:
    deadline = time.monotonic() + GUARD_START_S
    while not process.pid and process._failure is None and time.monotonic() < deadline:
        process._drain()
        if not process._guard_alive():
            process._drain()
            break
        time.sleep(0.002)
    if process.pid:
        return
    number, text = process._failure or (0, "its guard process did not start; the log may say why")
    process.stop(0.0)
    raise EnvironmentFault(
        f"cannot run {program}: {text or number}", why=process.log_tail(5), fix="check the path and its permissions"
    )
