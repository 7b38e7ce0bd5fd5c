"""How the command line shows errors and a run that is going on. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.markup import escape

from redline.engines.endpoint import Endpoint
from redline.errors import EngineError, RedlineError, Skipped
from redline.spec.load import LoadPoint
from redline.tune.events import Events

if TYPE_CHECKING:
    from rich.status import Status

    from redline.load.run import LoadProgress
    from redline.tune.preflight import Job

MARKS = {
    "valid": "[green]valid[/]",
    "degraded": "[yellow]degraded[/]",
    "client-bound": "[red]client-bound[/]",
    "invalid": "[red]invalid[/]",
}


def stderr() -> Console:
    return Console(stderr=True, highlight=False)


@contextmanager
def working(text: str) -> Iterator[None]:
    """Something that takes seconds and has no steps: a moving line, on a terminal only."""
    console = stderr()
    with console.status(text) if console.is_terminal else nullcontext():
        yield


def show_error(error: RedlineError) -> None:
    """What happened, what it means, what to do; and for an engine the end of its log."""
    console = stderr()
    console.print(f"[bold red]error[/] {escape(error.what)}")
    if isinstance(error, EngineError) and error.log_tail:
        console.print("[dim]" + escape(error.log_tail.rstrip()) + "[/]", soft_wrap=True)
    if error.why:
        console.print(escape(error.why))
    if error.fix:
        console.print(f"[bold]try[/] {escape(error.fix)}")


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str))
    sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()


class TerminalEvents(Events):
    """A line for every step done, and one that moves for the step under way (only on a terminal)."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or stderr()
        self._status: Status | None = None
        self._began = 0.0
        self._label = ""
        self._step = ""
        self._said = 0.0
        self._turn = ""

    def __enter__(self) -> TerminalEvents:
        self._status = self.console.status("", spinner="dots")
        if self.console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def _moving(self, text: str) -> None:
        if self._status is not None:
            self._status.update(text)
        if not self.console.is_terminal and time.monotonic() - self._said > 10:
            # a log file wants a sign of life too, but not ten a second
            self._said = time.monotonic()
            self.console.print(text)

    def run(self, run_id: str, jobs: list[Job], points: int) -> None:
        able = [job for job in jobs if job.skipped is None]
        self.console.print(f"run [bold]{run_id}[/]: {len(able)} engine configurations × {points} load points")

    def trial(self, job: Job, repeat: int) -> None:
        self.begin(job.label + (f" · repeat {repeat + 1}" if repeat else ""))

    def turn(self, job: Job, number: int) -> None:
        self._began, self._label = time.monotonic(), f"{job.label} · round {number + 1}"
        self._turn = f"round {number + 1} · {escape(job.spec.label)} · "

    def begin(self, label: str) -> None:
        """From here on, phases and points belong to `label`."""
        self._began = self._said = time.monotonic()
        self._label = label
        self._moving(f"[bold]{escape(label)}[/] starting")

    def phase(self, text: str) -> None:
        self._step = escape(text)
        self._moving(f"[bold]{escape(self._label)}[/] {time.monotonic() - self._began:.0f} s · {self._step}")

    def ready(self, endpoint: Endpoint) -> None:
        took = endpoint.startup_ms.get("total", 0.0) / 1000
        self.console.print(f"[bold]{escape(self._label)}[/] ready" + (f" in {took:.1f} s" if took else ""))

    def point(self, point: LoadPoint) -> None:
        self._said = time.monotonic()
        self._step = point.label
        self._moving(f"[bold]{escape(self._label)}[/] {point.label}")

    def progress(self, progress: LoadProgress) -> None:
        done = f"{progress.finished}" + (f"/{progress.planned}" if progress.planned else "")
        failed = f" · [red]{progress.failed} failed[/]" if progress.failed else ""
        self._moving(
            f"[bold]{escape(self._label)}[/] {self._step} · {progress.elapsed_s:.0f} s · {done} done"
            f" · {progress.in_flight} in flight · {progress.tokens_per_s:,.0f} tok/s{failed}"
        )

    def point_done(self, point: LoadPoint, verdict: str, reasons: tuple[str, ...]) -> None:
        why = f" ({escape(reasons[0])})" if reasons else ""
        self.console.print(f"  {self._turn}{point.label}: {MARKS.get(verdict, verdict)}{why}")

    def skipped(self, job: Job, skipped: Skipped) -> None:
        self.console.print(f"[bold]{escape(job.label)}[/] [yellow]{escape(str(skipped))}[/]")

    def failed(self, job: Job, error: RedlineError) -> None:
        self.console.print(f"[bold]{escape(job.label)}[/] failed")
        show_error(error)
