"""Thresholds, cost and the comparison with a baseline, as a CI job would use them, against the paced server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from tests.report.stored import write_run

# a late box makes answers later, and how late the client itself is gets weighed against the server's first token: that
# is slow enough here to be the server's on a busy box too
pytestmark = pytest.mark.timeout(300)
TTFT_MS = 200
LOAD = ["--model", "paced", "--concurrency", "4", "--prompt-tokens", "8", "--output-tokens", "6", "--requests", "16"]
LOAD += ["--calibrate", "0", "--canary-share", "0", "--slo-ttft", "5000", "--price-gpu-hour", "3.6"]


def redline(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "redline", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def bench(threshold: str, itl_ms: float, cwd: Path) -> subprocess.CompletedProcess[str]:
    with PacedServer(Pace(ttft_ms=TTFT_MS, itl_ms=itl_ms, model="paced")) as server:
        words = ["--url", server.base_url, *LOAD, "--threshold", threshold, "--threshold", "e2e_ms.p50 > 4 @ 4 clients"]
        return redline("bench", *words, "--json", cwd=cwd)


def test_what_is_good_enough_goes_on_and_what_is_not_or_is_slower_fails_the_job(tmp_path: Path) -> None:
    good = bench("ttft_ms.p50 < 5000", 5, tmp_path)
    assert good.returncode == 0, good.stderr
    sections = json.loads(good.stdout)["sections"]
    assert [row["outcome"] for row in sections["thresholds"]["rows"]] == ["✓ pass", "✓ pass"]
    assert sections["cost"]["title"] == "Cost in USD"
    assert sections["cost"]["rows"][0]["load"].startswith("4 clients")

    bad = bench("e2e_ms.p50 < 1", 80, tmp_path)
    assert bad.returncode == 5, bad.stderr
    assert "threshold missed: e2e_ms.p50 < 1" in bad.stderr
    assert json.loads(bad.stdout)["sections"]["thresholds"]["rows"][0]["outcome"] == "✗ fail"

    found = redline("compare", "last~1", "last", "--tolerance", "5", "--json", "--output", "out", cwd=tmp_path)
    assert found.returncode == 5, found.stderr
    effects = json.loads(found.stdout)["pairs"][0]["points"][0]["effects"]
    assert next(one for one in effects if one["metric"] == "e2e_ms.p50")["regression"]
    assert "ITL p50" in (tmp_path / "out" / "versus.md").read_text()
    assert "<html" in (tmp_path / "out" / "versus.html").read_text()


def test_what_makes_no_sense_is_refused_before_anything_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "redline-results" / "redline.db", clients=[1], seconds=1.0)
    for words, what in (
        (["compare", "last"], "a comparison takes two"),
        (["compare", "last", "last~1", "--model", "x"], "belongs to a measurement"),
        (["compare", "--model", "x", "--engines", "transformers", "--baseline", "nonsense"], "nonsense"),
    ):
        found = redline(*words, cwd=tmp_path)
        assert found.returncode in (2, 3), found.stderr
        assert what in found.stderr
