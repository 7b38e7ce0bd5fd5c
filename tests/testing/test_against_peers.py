"""Oracle: the real tools against the paced server, and redline under the same plan: `--as TOOL` is what TOOL reports.

A TTFT of 400 ms at a gentle load, so that the tools' own errors stay well below one percent. Where one does not (a busy
box), the server's truth shows it, and that number is left out: it is the client that is off, not the definition.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redline.analyse.peers.answers import Beside
from redline.analyse.peers.tools import recompute
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.report.peers import peer_points
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from redline.store.from_records import columns_of
from redline.store.imports.files import read_file
from redline.store.read import Reader
from redline.testing.peers import PEERS, PeerPlan, find, redline_command, true_record

ROOT = Path(__file__).parents[2]
COMPARED = {
    "vllm": ("mean_ttft_ms", "median_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "mean_itl_ms", "mean_e2el_ms"),
    "guidellm": (
        "time_to_first_token_ms.successful.mean",
        "time_to_first_token_ms.successful.median",
        "time_per_output_token_ms.successful.mean",
        "inter_token_latency_ms.successful.mean",
        "request_latency.successful.mean",
    ),
    "aiperf": (
        *("time_to_first_token.avg", "time_to_first_token.p50", "inter_token_latency.avg", "inter_chunk_latency.avg"),
        "request_latency.avg",
    ),
    "inference-perf": (
        *("successes.latency.time_to_first_token.mean", "successes.latency.time_to_first_token.median"),
        *("successes.latency.time_per_output_token.mean", "successes.latency.inter_token_latency.mean"),
        "successes.latency.request_latency.mean",
    ),
    "sglang": (
        *("mean_ttft_ms", "median_ttft_ms", "mean_tpot_ms", "median_tpot_ms", "mean_itl_ms", "mean_e2e_latency_ms"),
        "median_e2e_latency_ms",
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[PacedServer]:
    with PacedServer(Pace(ttft_ms=400, itl_ms=20, usage="final")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "tool", [pytest.param(name, marks=pytest.mark.vllm if name == "vllm" else ()) for name in PEERS]
)
def test_as_the_tool_is_what_the_tool_reports(server: PacedServer, tmp_path: Path, tool: str) -> None:
    peer = find(tool, ROOT)
    if peer is None:
        pytest.skip(f"{tool} is not installed: " + ("make vllm" if tool == "vllm" else "make peers"))
    tokenizer = resolve_model(ModelSpec(id="bundled:tiny")).tokenizer_path
    assert tokenizer is not None
    plan = PeerPlan(f"http://127.0.0.1:{server.port}", tokenizer, requests=40, rate=8.0)
    server.truth(clear=True)
    theirs = read_file(peer.run(plan, tmp_path / tool, timeout_s=200))[0].summary
    sent = [true_record(truth) for truth in server.truth()[-plan.requests :]]
    true = recompute(tool, columns_of(sent), Beside(closing_events=1))
    subprocess.run(redline_command(plan, tmp_path / "r.db"), check=True, capture_output=True, timeout=100)
    with Reader.open(tmp_path / "r.db") as reader:
        (point,) = peer_points(reader, ["last"], tool)
    told_true = [key for key in COMPARED[tool] if _at(theirs, key) == pytest.approx(true.value(key), rel=0.005)]
    for key in told_true:
        assert point.report.value(key) == pytest.approx(_at(theirs, key), rel=0.01), key
    if not told_true:
        pytest.skip(f"{tool} was starved: every number is more than 0.5 % off the server's truth")


def _at(summary: dict[str, Any], path: str) -> float:
    found: Any = summary
    for step in path.split("."):
        found = found[step]
    return float(found)
