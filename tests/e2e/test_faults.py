"""The client's own misfortunes, as a user meets them: killed in the middle, and a disk that is full."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from tests.e2e.program import COMMAND, SHORT, answered, run, start, wait_for


def flags(server: PacedServer, *more: str) -> list[str]:
    return ["--url", server.base_url, "--model", "paced", "--concurrency", "4", *SHORT, *more]


def test_kill_9_loses_nothing_that_was_finished_half_a_second_before(tmp_path: Path) -> None:
    with PacedServer(Pace(ttft_ms=10, itl_ms=3)) as server:
        process = start(tmp_path, "bench", *flags(server, "--duration", "100"))
        wait_for(lambda: answered(tmp_path) > 50, every_s=0.1)
        os.kill(process.pid, signal.SIGKILL)
        killed_ns = time.monotonic_ns()
        process.wait()
        truths = server.truth()
    finished = [truth for truth in truths if 0 < truth.finished_ns < killed_ns - 500_000_000]
    with sqlite3.connect(tmp_path / "redline-results" / "redline.db") as store:
        [(kept,)] = store.execute("SELECT count(*) FROM request WHERE status = 'ok'").fetchall()
    store.close()
    assert kept >= len(finished) > 20
    assert "interrupted" in run(tmp_path, "report", "last", "--format", "md").stdout


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_it_had(tmp_path: Path) -> None:
    """A small file system of its own, so that the box's disk is left alone."""
    folder = tmp_path / "small"
    folder.mkdir()
    kept = tmp_path / "kept"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root (unshare -m)")
    with PacedServer(Pace(ttft_ms=5, itl_ms=1, chunk_bytes=50)) as server:
        # 256 tokens leave about a kilobyte a request
        bench = [*COMMAND, "bench", *flags(server, "--duration", "60", "--output-tokens", "256", "--concurrency", "40")]
        script = (
            f"mount -t tmpfs -o size=4m none {folder} && cd {folder} && "
            f"{shlex.join(bench)} >{tmp_path}/out 2>&1; code=$?; cp -r {folder} {kept}; exit $code"
        )
        began = time.monotonic()
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", script],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, timeout=120, check=False,
        )  # fmt: skip
        took = time.monotonic() - began
    said = (tmp_path / "out").read_text()
    assert done.returncode == 3, said
    assert "the disk is full" in said
    assert "Traceback" not in said
    assert took < 60
    with sqlite3.connect(kept / "redline-results" / "redline.db") as store:
        [(good,)] = store.execute("SELECT count(*) FROM request WHERE status = 'ok'").fetchall()
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()
    assert good > 20
