"""An engine adapter around the paced server: real processes, real load, an exact schedule, and planned accidents."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from redline.analyse.summary import PointSummary
from redline.engines.endpoint import Endpoint
from redline.engines.engine import Progress, Start
from redline.errors import EngineStartFailed, Skipped, UsageError
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.progress import LoadProgress
from redline.spec.engine import EngineSpec
from redline.spec.load import LoadPoint
from redline.spec.model import ModelSpec
from redline.tune.events import Events

PLANNED = {"slots", "ttft-ms", "itl-ms", "fail-start", "interrupt-start", "die-after", "missing"}
PLANNED |= {"speed-file", "start-file", "prefix-cache"}


class Running:
    def __init__(self, server: PacedServer) -> None:
        self.server = server
        self.stops = 0
        assert server.process is not None
        process = server.process
        took = {"total": server.pace.ttft_ms}
        self.endpoint: Endpoint = replace(server.endpoint, startup_ms=took, pids=(process.pid,))

    def alive(self) -> bool:
        return self.server.alive

    def healthy(self, timeout_s: float = 5.0) -> bool:
        return self.server.alive

    def log_tail(self, lines: int = 40) -> str:
        return "the last words"

    def diagnose(self) -> tuple[str, str, str]:
        return "killed", "somebody killed it", "do not"

    def stop(self) -> None:
        self.stops += 1
        self.server.stop()


class PacedEngine:
    kind = "paced"
    started: list[Running] = []  # noqa: RUF012

    def available(self, spec: EngineSpec) -> Skipped | None:
        return Skipped("no such hardware", "buy it") if spec.flags.get("missing") else None

    def version(self, spec: EngineSpec) -> str:
        return "1"

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        return frozenset(PLANNED)

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        if set(spec.flags) - PLANNED:
            raise UsageError(f"unknown flag {sorted(set(spec.flags) - PLANNED)[0]}")

    def start(self, start: Start, progress: Progress) -> Running:
        flags: dict[str, Any] = dict(start.spec.flags)
        (start.artifacts / "engine.log").write_text("started\n")
        progress("starting")
        if flags.get("interrupt-start"):
            raise KeyboardInterrupt
        if flags.get("fail-start"):
            raise EngineStartFailed("it died", log_tail="out of memory", diagnosis="out-of-memory")
        pace = Pace(
            ttft_ms=flags.get("ttft-ms", 5.0), itl_ms=flags.get("itl-ms", 2.0), model=start.model.served_name,
            slots=flags.get("slots", 0), speed_file=flags.get("speed-file", ""),
            prefix_cache=flags.get("prefix-cache", False),
            # in the middle of an answer, not of a time; only the first start, so that what is left can go on
            die_after=0 if PacedEngine.started else flags.get("die-after", 0),
        )  # fmt: skip
        if at_start := flags.get("start-file"):
            factor = float(Path(at_start).read_text())
            pace = replace(pace, ttft_ms=pace.ttft_ms * factor, itl_ms=pace.itl_ms * factor)
        running = Running(PacedServer(pace).start())
        PacedEngine.started.append(running)
        return running


class InterruptAfter(Events):
    """Ctrl-C in the middle of the point that follows so many."""

    def __init__(self, points: int) -> None:
        self.left = points

    def point_done(self, point: LoadPoint, summary: PointSummary) -> None:
        self.left -= 1

    def progress(self, progress: LoadProgress) -> None:
        if self.left == 0 and progress.phase == "measuring" and progress.finished:
            self.left = -1
            os.kill(os.getpid(), signal.SIGINT)
