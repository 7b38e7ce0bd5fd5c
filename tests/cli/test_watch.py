from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from redline.cli.watch_view import view
from redline.observe.proc import children
from redline.tune.watch import Gauge, Snapshot

REDLINE = [sys.executable, "-m", "redline", "watch"]


def gauge(name: str, value: float, unit: str = "", age_s: float = 0.1, **labels: str) -> Gauge:
    recent = tuple((age_s + ago, value * (60 - ago) / 60) for ago in range(0, 60, 2))
    return Gauge(name, unit, labels, value, age_s, recent)


def snapshot(*gauges: Gauge, **telemetry: object) -> Snapshot:
    return Snapshot("run 1", "running", "1", "tiny on vllm 0.30", "4 clients", gauges, dict(telemetry))


def shown(seen: Snapshot, width: int) -> list[str]:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as caught:
        console.print(view(seen, width))
    return caught.get().splitlines()


BUSY = snapshot(
    gauge("gpu.utilisation_share", 0.97, "share", gpu="0"), gauge("gpu.dram_active_share", 0.71, "share", gpu="0"),
    gauge("gpu.slowed", 1, gpu="0"), gauge("gpu.clock_event_bits", 4, gpu="0"),
    gauge("host.cpu_busy_share", 0.4, "share"), gauge("host.cpu_core_busy_share", 1.0, "share", cpu="0"),
    gauge("engine.kv_usage_share", 0.83, "share"), gauge("client.in_flight", 4),
    samplers={"host": {"cpu_share": 0.004}}, notes=["the sampler process died"],
)  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_everything_is_there(width: int) -> None:
    lines = shown(BUSY, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for word in ("GPU", "engine", "host", "client", "97%", "71%", "83%", "power-cap", "0.4% of a core", "died"):
        assert word in text, word
    beside = any("─ GPU" in line and "─ engine" in line for line in lines)
    assert beside == (width >= 80)


def test_many_gpus_have_a_line_each() -> None:
    gpus = [gauge("gpu.utilisation_share", n / 10, "share", gpu=str(n)) for n in range(8)]
    text = "\n".join(shown(snapshot(*gpus, gauge("gpu.power_w", 700, "W", gpu="7")), 80))
    assert all(f"{n}0%" in text for n in range(1, 8))
    assert "7 700 W" in text


def test_no_gpu_says_why() -> None:
    none = snapshot(skipped={"gpu": {"reason": "no NVIDIA driver on this box", "how_to_get_it": ""}})
    assert "no NVIDIA driver" in "\n".join(shown(none, 80))


def test_once_as_json_on_the_bare_box() -> None:
    done = subprocess.run([*REDLINE, "--box", "--once", "--json"], capture_output=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    assert told["status"] == "live"
    assert {"host.cpu_busy_share", "host.memory_available_bytes"} <= {one["name"] for one in told["values"]}
    assert told["telemetry"]["samplers"]["host"]["ticks"] > 0


def test_nothing_to_watch_is_a_usage_error(tmp_path: Path) -> None:
    done = subprocess.run([*REDLINE, "--db", str(tmp_path / "none.db")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no run goes on" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_leaves_the_terminal_as_it_was_and_no_process_behind() -> None:
    terminal, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm-256color"}
    with subprocess.Popen([*REDLINE, "--box"], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as running:
        os.close(theirs)
        seen, samplers, until = b"", list[int](), time.monotonic() + 60
        while time.monotonic() < until:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # its end of the terminal is closed
                break
            if not samplers and seen.count(b"wait CPU") > 1:
                samplers = children(running.pid)
                running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
    os.close(terminal)
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1, "the alternate screen is left"
    assert seen.count(b"\x1b[?25h") == 1, "the cursor is back"
    assert samplers
    assert not any(Path(f"/proc/{sampler}").exists() for sampler in samplers)
