"""Turns an engine's profiler on and off, and finds what it wrote."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from redline.engines.engine import Server
from redline.engines.http import Reply, try_fetch
from redline.engines.launch import root_of
from redline.errors import EngineError, Unsupported

FLUSH_S = 600.0
"""A trace of many kernels takes minutes to be written."""
SETTLE_S = 0.3
APPEAR_S = 30.0


class ProfilerFailed(EngineError):
    pass


class Recorder:
    """`folder` is where the engine writes its traces; None for a server of somebody else's that does not say."""

    def __init__(self, server: Server, folder: Path | None, headers: Mapping[str, str] = {}) -> None:
        self._server, self._folder, self._headers = server, folder, headers
        self._before: set[Path] = set()

    def begin(self) -> None:
        self._before = self._traces()
        self._post("/start_profile", 120.0)

    def end(self) -> Path | None:
        """The trace; None where an outer profiler writes it."""
        reply = self._post("/stop_profile", FLUSH_S)
        told = reply.json()
        if isinstance(told, dict) and "file" in told:
            return Path(told["file"]) if told["file"] else None
        return self._appeared()

    def forget(self, path: Path | None) -> None:
        if path is not None:
            path.unlink(missing_ok=True)

    def _post(self, path: str, timeout_s: float) -> Reply:
        url = root_of(self._server.endpoint.base_url) + path
        reply = try_fetch(url, body={}, headers=self._headers, timeout_s=timeout_s)
        if reply is None:
            raise ProfilerFailed(f"{path} got no answer within {timeout_s:.0f} s", log_tail=self._server.log_tail())
        if reply.status in (404, 405):
            raise Unsupported(
                f"this server has no {path}: {reply.error}",
                fix="start it with its profiler on (vLLM: --profiler-config, redline: --profile-dir), or let redline"
                " start it",
            )
        if not reply.ok:
            raise ProfilerFailed(f"{path} answers HTTP {reply.status}: {reply.error}", log_tail=self._server.log_tail())
        return reply

    def _traces(self) -> set[Path]:
        return set(self._folder.rglob("*.json*")) if self._folder is not None and self._folder.is_dir() else set()

    def _appeared(self) -> Path | None:
        """The first rank's trace, once it has stopped growing."""
        if self._folder is None:
            raise Unsupported(
                "this server does not say where it writes its traces", fix="name its folder: --trace-dir FOLDER"
            )
        until = time.monotonic() + APPEAR_S
        while not (new := sorted(self._traces() - self._before)):
            if time.monotonic() > until:
                raise ProfilerFailed(f"no trace appeared in {self._folder}", log_tail=self._server.log_tail())
            time.sleep(0.1)
        workers = [path for path in new if "async_llm" not in path.name and "frontend" not in path.name] or new
        first = next((path for path in workers if "rank-0" in path.name or "rank0" in path.name), workers[0])
        size = -1
        while size != (size := first.stat().st_size):
            time.sleep(SETTLE_S)
        return first
