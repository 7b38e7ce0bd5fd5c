"""Prometheus and its companions as processes of a test: Debian's programs, by scripts/install-monitoring.sh."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

UNPACKED = Path(os.environ.get("REDLINE_MONITORING") or Path(__file__).parents[2] / ".monitoring") / "bin"


def program(name: str) -> str:
    """Its path; the test is skipped where it is missing."""
    found = shutil.which(name, path=f"{UNPACKED}:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(
            f"no {name} in {UNPACKED} or on PATH: `scripts/install-monitoring.sh .monitoring` gets it from Debian"
        )
    return found


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=100)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Ended by its own pid, also when the test fails."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=log.parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Prometheus:
    """A real one on loopback."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        body = urllib.parse.urlencode(parameters).encode() if parameters else None
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", data=body, timeout=10) as answer:
            return json.load(answer)["data"]

    def value(self, expr: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query", query=expr)["result"]
        return found

    def has(self, expr: str) -> bool:
        """Whether the query gives a number: NaN is none."""
        return any(series["value"][1] != "NaN" for series in self.value(expr))

    def ready(self, timeout_s: float = 30) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("Prometheus did not become ready")


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """With the files of `redline export monitoring` in `folder`; every 2 seconds instead of every 5 and 15."""
    config = folder / "prometheus"
    for path in (config / "prometheus.yml", *(config / "rules").glob("*.yml")):
        text = path.read_text().replace("_interval: 5s", "_interval: 2s").replace("_timeout: 5s", "_timeout: 2s")
        path.write_text(text.replace("interval: 15s", "interval: 2s").replace("interval: 1m", "interval: 4s"))
    port = free_port()
    options = [
        f"--config.file={config}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.min-block-duration=2h",
    ]  # fmt: skip
    with running(folder / "prometheus.log", program("prometheus"), *options):
        server = Prometheus(port)
        server.ready()
        yield server


@contextmanager
def page(text: Any) -> Iterator[int]:
    """A page of metrics, made anew by `text()` for every scrape; its port."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):  # a scrape that took too long on a busy box
                self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
