"""Thresholds, cost and the comparison with a baseline, as a CI job would use them, against the paced server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer

# a late box only makes answers later: nothing below depends on how fast it is
pytestmark = pytest.mark.timeout(300)
LOAD = ["--model", "paced", "--concurrency", "2", "--prompt-tokens", "8", "--output-tokens", "6", "--requests", "40"]
LOAD += ["--calibrate", "0"]


def redline(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "redline", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decisions")


def test_thresholds_and_cost_then_a_baseline(place: Path) -> None:
    with PacedServer(Pace(ttft_ms=10, itl_ms=5, model="paced")) as server:
        words = ["bench", "--url", server.base_url, *LOAD, "--slo-ttft", "5000", "--price-gpu-hour", "3.6"]
        words += ["--threshold", "ttft_ms.p50 < 5000", "--threshold", "e2e_ms.p50 > 4 @ 2 clients"]
        good = redline(*words, "--json", cwd=place)
        bad = redline(*words, "--threshold", "e2e_ms.p50 < 1", cwd=place)
    assert good.returncode == 0, good.stderr
    sections = json.loads(good.stdout)["sections"]
    assert [row["outcome"] for row in sections["thresholds"]["rows"]] == ["✓ pass", "✓ pass"]
    assert sections["cost"]["title"] == "Cost in USD"
    assert sections["cost"]["rows"][0]["load"].startswith("2 clients")
    assert bad.returncode == 5, bad.stderr
    assert "threshold missed: e2e_ms.p50 < 1" in bad.stderr
    assert "✗ fail" in bad.stdout


def test_a_slower_server_fails_the_job(place: Path) -> None:
    for itl_ms in (5, 40):
        with PacedServer(Pace(ttft_ms=10, itl_ms=itl_ms, model="paced")) as server:
            measured = redline("bench", "--url", server.base_url, *LOAD, cwd=place)
        assert measured.returncode == 0, measured.stderr
    found = redline("compare", "last~1", "last", "--tolerance", "5", "--json", "--output", "out", cwd=place)
    assert found.returncode == 5, found.stderr
    effects = json.loads(found.stdout)["pairs"][0]["points"][0]["effects"]
    assert next(one for one in effects if one["metric"] == "e2e_ms.p50")["regression"]
    assert "ITL p50" in (place / "out" / "versus.md").read_text()


def test_what_makes_no_sense_is_refused_before_anything_runs(place: Path) -> None:
    for words, what in (
        (["compare", "last"], "a comparison takes two"),
        (["compare", "last", "last~1", "--model", "x"], "belongs to a measurement"),
        (["compare", "--model", "x", "--engines", "transformers", "--baseline", "nonsense"], "nonsense"),
    ):
        found = redline(*words, cwd=place)
        assert found.returncode in (2, 3), found.stderr
        assert what in found.stderr
