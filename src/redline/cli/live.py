"""What moves on the terminal while a load point runs: how far it is, what the server does, how the client feels."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from redline.load.run import LoadProgress

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 40
LAG_SHARE_MAX = 0.1
"""Send lag beyond this share of TTFT is shown as trouble; the verdict uses the same bound."""


@dataclass
class Panel:
    """What is shown; `render` gives the lines. Lives as long as a run, one step after the other."""

    label: str = ""
    step: str = ""
    began: float = field(default_factory=time.monotonic)
    progress: LoadProgress | None = None
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    def start(self, label: str, step: str) -> None:
        """Another engine, phase or load point."""
        self.label, self.step, self.progress = label, step, None
        self.rates.clear()

    def took(self, progress: LoadProgress) -> None:
        self.progress = progress
        self.rates.append(progress.tokens_per_s)

    def __rich__(self) -> RenderableType:
        head = Spinner("dots", Text.assemble((self.label, "bold"), f" {self.step} · {_elapsed(self.began)}"))
        if self.progress is None:
            return head
        return Group(head, *_lines(self.progress, self.rates))


def _elapsed(began: float) -> str:
    seconds = int(time.monotonic() - began)
    return f"{seconds // 60}:{seconds % 60:02d}"


def _lines(now: LoadProgress, rates: deque[float]) -> list[RenderableType]:
    bar = Table.grid(padding=(0, 1))
    share, text = _share(now)
    bar.add_row("  ", ProgressBar(total=1.0, completed=share, width=40), Text(f"{now.phase} {text}"))
    failed = (f" · {now.failed} failed", "bold red") if now.failed else ("", "")
    server = Text.assemble(
        f"   {now.in_flight} in flight · {now.finished} done", failed, f" · {now.tokens_per_s:,.0f} tok/s ",
        (sparkline(rates), "cyan"),
    )  # fmt: skip
    lines: list[RenderableType] = [bar, server]
    if now.ttft_ms is not None:
        latency = f"   TTFT p50 {now.ttft_ms[0]:,.1f} p99 {now.ttft_ms[1]:,.1f} ms"
        if now.tpot_ms is not None:
            latency += f" · TPOT p50 {now.tpot_ms[0]:,.2f} p99 {now.tpot_ms[1]:,.2f} ms"
        lines.append(Text(f"{latency}  (last {now.recent} requests)", style="dim"))
        trouble = now.send_lag_ms > LAG_SHARE_MAX * now.ttft_ms[1] or now.client_busy > 0.85
        client = f"   client: send lag p99 {now.send_lag_ms:.2f} ms · CPU {now.client_busy:.0%}"
        lines.append(Text(client, style="red" if trouble else "dim"))
    return lines


def _share(now: LoadProgress) -> tuple[float, str]:
    """How far the point is: by requests where they are planned, else by time; whichever is further."""
    parts = [(now.finished / now.planned, f"{now.finished}/{now.planned} requests")] if now.planned else []
    if now.duration_s:
        parts.append((now.elapsed_s / now.duration_s, f"{now.elapsed_s:.0f}/{now.duration_s:g} s"))
    share, text = max(parts, default=(0.0, f"{now.elapsed_s:.0f} s"))
    return min(share, 1.0), text


def sparkline(values: deque[float] | list[float]) -> str:
    """One bar per value, scaled to the highest."""
    top = max(values, default=0.0)
    if top <= 0:
        return ""
    return "".join(_BARS[min(int(max(value, 0) / top * len(_BARS)), len(_BARS) - 1)] for value in values)
