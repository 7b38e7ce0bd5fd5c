"""How the command line shows errors and a run that is going on. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from redline.cli.live import Panel
from redline.engines.endpoint import Endpoint
from redline.errors import EngineError, RedlineError, Skipped
from redline.spec.load import LoadPoint
from redline.tune.events import Events

if TYPE_CHECKING:
    from redline.analyse.summary import PointSummary
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
    """A line for every step done, and a part that moves for the step under way (only on a terminal)."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or stderr()
        self._panel = Panel()
        self._live: Live | None = None
        self._label = ""
        self._said = 0.0
        self._turn = ""

    def __enter__(self) -> TerminalEvents:
        if self.console.is_terminal:
            self._live = Live(self._panel, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _sign_of_life(self, text: str) -> None:
        if self._live is None and time.monotonic() - self._said > 10:
            # a log file wants a sign of life too, but not ten a second
            self._said = time.monotonic()
            self.console.print(text)

    def run(self, run_id: str, jobs: list[Job], points: int) -> None:
        able = [job for job in jobs if job.skipped is None]
        many = f"{points} load points" if points else "a search"
        self.console.print(f"run [bold]{run_id}[/]: {len(able)} engine configurations × {many}")

    def proof(self, run_id: str, settings: int, rounds: int) -> None:
        self.console.print(
            f"run [bold]{run_id}[/]: {settings} setting{'' if settings == 1 else 's'}, both values in {rounds} rounds"
        )

    def trial(self, job: Job, repeat: int) -> None:
        self.begin(job.label + (f" · repeat {repeat + 1}" if repeat else ""))

    def turn(self, job: Job, number: int) -> None:
        self.begin(f"{job.label} · round {number + 1}")
        self._turn = f"round {number + 1} · {escape(job.spec.label)} · "

    def begin(self, label: str) -> None:
        """From here on, phases and points belong to `label`."""
        self._said = self._panel.began = time.monotonic()
        self._label = label
        self._panel.start(label, "starting")

    def phase(self, text: str) -> None:
        self._panel.start(self._label, text)
        self._sign_of_life(f"[bold]{escape(self._label)}[/] {escape(text)}")

    def ready(self, endpoint: Endpoint) -> None:
        took = endpoint.startup_ms.get("total", 0.0) / 1000
        self.console.print(f"[bold]{escape(self._label)}[/] ready" + (f" in {took:.1f} s" if took else ""))

    def point(self, point: LoadPoint) -> None:
        self._said = time.monotonic()
        self._panel.start(self._label, point.label)

    def progress(self, progress: LoadProgress) -> None:
        self._panel.took(progress)
        done = f"{progress.finished}" + (f"/{progress.planned}" if progress.planned else "")
        self._sign_of_life(
            f"[bold]{escape(self._label)}[/] {self._panel.step} · {progress.elapsed_s:.0f} s · {done} done"
            f" · {progress.in_flight} in flight · {progress.tokens_per_s:,.0f} tok/s · {progress.failed} failed"
        )

    def point_done(self, point: LoadPoint, summary: PointSummary) -> None:
        self._panel.start(self._label, "")
        verdict, numbers = summary.verdict, _numbers(summary)
        why = f" ({escape(verdict.reasons[0])})" if verdict.reasons else ""
        self.console.print(
            f"  {self._turn}{point.label}: {MARKS.get(verdict.state, verdict.state)} {numbers}[dim]{why}[/]"
        )

    def skipped(self, job: Job, skipped: Skipped) -> None:
        self.console.print(f"[bold]{escape(job.label)}[/] [yellow]{escape(str(skipped))}[/]")

    def failed(self, job: Job, error: RedlineError) -> None:
        self.console.print(f"[bold]{escape(job.label)}[/] failed")
        show_error(error)


def _numbers(summary: PointSummary) -> str:
    """What one wants to see at once of a point that is done."""
    way = "input" if summary.value("output_tokens") == 0 else "output"  # embeddings put no token out
    shown = [
        f"{name} {value:,.{digits}f} {unit}"
        for name, key, unit, digits in (
            ("", f"{way}_tokens_per_s", f"{'input ' if way == 'input' else ''}tok/s", 0),
            ("TTFT p99", "ttft_ms.p99", "ms", 1),
            ("ITL p50", "itl_ms.p50", "ms", 2),
        )
        if math.isfinite(value := summary.value(key))
    ]
    return " · ".join(text.strip() for text in shown)
