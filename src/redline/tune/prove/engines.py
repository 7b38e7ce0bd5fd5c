"""Engines as prove needs them: one that is up for both values, and one that is started for a value."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace

from redline.engines.endpoint import Endpoint
from redline.engines.engine import Engine, Progress, Server, Start
from redline.engines.url import UrlEngine, UrlServer
from redline.errors import EngineStartFailed, Skipped, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.tune.prove.switch import Switch

RESTART_S = 900.0
_LOOK_EVERY_S = 0.2


class Held:
    """A server that is up already and stays up; who stops this view of it stops nothing."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.endpoint: Endpoint = replace(server.endpoint, startup_ms={})  # its start belongs to neither value

    def alive(self) -> bool:
        return self._server.alive()

    def healthy(self, timeout_s: float = 5.0) -> bool:
        return self._server.healthy(timeout_s)

    def log_tail(self, lines: int = 40) -> str:
        return self._server.log_tail(lines)

    def diagnose(self) -> tuple[str, str, str]:
        return self._server.diagnose()

    def stop(self) -> None: ...


class _Like:
    """An adapter that differs from another one in how it starts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.kind = engine.kind

    def available(self, spec: EngineSpec) -> Skipped | None:
        return self._engine.available(spec)

    def version(self, spec: EngineSpec) -> str:
        return self._engine.version(spec)

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        return self._engine.known_flags(spec)

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        self._engine.check(spec, model)


class HeldEngine(_Like):
    """Whoever starts it gets the one server that is up."""

    def __init__(self, engine: Engine, server: Server) -> None:
        super().__init__(engine)
        self._server = server

    def start(self, start: Start, progress: Progress) -> Server:
        return Held(self._server)


class ArrangedEngine(_Like):
    """The setting has its value before the engine starts."""

    def __init__(self, engine: Engine, switch: Switch, wanted: bool) -> None:
        super().__init__(engine)
        self._switch, self._wanted = switch, wanted

    def start(self, start: Start, progress: Progress) -> Server:
        self._switch.to(self._wanted)
        try:
            return self._engine.start(start, progress)
        finally:
            self._switch.started()


class RestartedUrl(UrlEngine):
    """A server that somebody else runs, and a command of theirs that starts it again."""

    def __init__(self, command: str, *, speaks: bool = True) -> None:
        """`speaks` False: whatever listens there will do, it need not answer prompts."""
        self._argv: Sequence[str] = shlex.split(command)
        self._speaks = speaks
        if not self._argv:
            raise UsageError("the command that restarts the server is empty")

    def start(self, start: Start, progress: Progress) -> UrlServer:
        progress(f"running {shlex.join(self._argv)}")
        began = time.monotonic()
        limit_s = min(RESTART_S, start.spec.startup_timeout_s)
        log = start.artifacts / "restart.log"
        try:
            with log.open("wb") as file:
                done = subprocess.run(self._argv, stdout=file, stderr=subprocess.STDOUT, timeout=limit_s, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineStartFailed(f"{shlex.join(self._argv)}: {error}") from error
        if done.returncode:
            tail = log.read_text(errors="replace")[-2000:]
            raise EngineStartFailed(f"{shlex.join(self._argv)} ended with {done.returncode}", log_tail=tail)
        probe = UrlServer(Endpoint(start.spec.url, "", "", ""), {})
        while not probe.alive() or (self._speaks and not probe.healthy()):
            if time.monotonic() - began > limit_s:
                raise EngineStartFailed(f"nothing answers at {start.spec.url} after {limit_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)
        server = super().start(start, progress) if self._speaks else probe
        took = (time.monotonic() - began) * 1000
        server.endpoint = replace(server.endpoint, startup_ms={"total": took})
        return server
