"""What moves on the terminal, as text; and a whole run on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from redline.cli.live import Panel, sparkline
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.progress import LoadProgress


def shown(panel: Panel) -> str:
    console = Console(width=110, force_terminal=True, color_system=None, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(panel)
    text = console.export_text()
    console.file.close()
    return text


def progress(**values: object) -> LoadProgress:
    base: dict[str, object] = {
        "phase": "measuring", "elapsed_s": 5.0, "planned": 0, "in_flight": 8, "finished": 40, "failed": 0,
        "tokens": 100, "tokens_per_s": 1234.0, "duration_s": 20.0,
    }  # fmt: skip
    return LoadProgress(**(base | values))  # type: ignore[arg-type]


def test_a_point_under_way() -> None:
    panel = Panel()
    panel.start("vllm · tiny", "8 clients")
    assert "8 clients" in shown(panel)
    panel.took(progress(ttft_ms=(20.0, 31.5), tpot_ms=(4.0, 5.25), recent=40, send_lag_ms=0.3, client_busy=0.2))
    text = shown(panel)
    server, latency = ("5/20 s", "8 in flight", "1,234 tok/s"), ("TTFT p50 20.0 p99 31.5 ms", "TPOT p50 4.00 p99 5.25")
    for part in (*server, *latency, "20%"):
        assert part in text, text
    assert "failed" not in text
    panel.took(progress(failed=3, planned=50))
    assert "3 failed" in shown(panel)
    assert "40/50 requests" in shown(panel)


def test_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == ""
    assert sparkline([0.0, 50.0, 100.0]) == "▁▅█"


def test_on_a_terminal_it_moves_and_leaves_lines(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with PacedServer(Pace(ttft_ms=20, itl_ms=4)) as server:
        command = [
            sys.executable, "-m", "redline", "bench", "--url", server.base_url, "--model", "paced",
            "--db", str(tmp_path / "r.db"), "--concurrency", "2", "--duration", "2",
            "--output-tokens", "16", "--calibrate", "0",
        ]  # fmt: skip
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
            os.close(theirs)
            said = b""
            while True:
                try:
                    piece = os.read(ours, 65536)
                except OSError:  # the other side is gone
                    break
                if not piece:
                    break
                said += piece
            assert process.wait(30) == 0
    os.close(ours)
    text = said.decode("utf-8", "replace")
    assert "in flight" in text
    assert "TTFT p50" in text
    assert "client: send lag" in text
    assert "2 clients" in text.split("in flight")[-1], "the line of the point that is done stays"
