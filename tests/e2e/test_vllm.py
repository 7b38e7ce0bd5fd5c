"""Real vLLM (the CPU build, in a virtual environment of its own) beside transformers on the bundled model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from redline.analyse.explain.shares import BASES
from redline.report.explain.read import PointExplained, explain_point
from redline.store.read import Reader
from redline.store.requests import Requests
from redline.store.rows import PointRow, TrialRow
from tests.e2e.program import SHORT, run, stored

VLLM = Path(os.environ.get("REDLINE_VLLM_PYTHON") or Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")

PARTS = ("queue", "model_prefill", "model_decode")
CLOCKS_NS = 20_000_000
"""vLLM's wall clock against our monotonic one, and the end of a span, which is when vLLM made it."""

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; get it with `make vllm`"),
]


def test_transformers_against_vllm(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "transformers,vllm", "--concurrency", "1,8", "--spans", *SHORT]
    vllm = ["--engine-python", f"vllm={VLLM}", "--engine-flag", "vllm.enforce-eager=true", "--dtype", "bfloat16"]
    report = json.loads(run(tmp_path, "compare", *flags, *vllm, "--json", timeout=580).stdout)
    row = stored(tmp_path)
    assert row is not None
    assert [trial.engine for trial in row.trials] == ["transformers-plain", "transformers-continuous", "vllm"]
    assert [trial.status for trial in row.trials] == ["done"] * 3
    trial = row.trials[-1]
    assert "0." in trial.engine_version
    assert trial.flags, "what vLLM resolved is read back"
    assert trial.startup_ms["total"] > 0
    assert trial.log is not None
    with Reader.open(tmp_path / "redline-results" / "redline.db") as reader:
        for point in trial.points:
            requests = reader.requests(point.id)
            good = requests.pick((requests.status == "ok") & ~requests.warmup & (requests.canary < 0))
            assert len(good) > 0
            assert set(good.prompt_tokens) == {16}
            assert set(good.output_tokens) == {8}
            assert set(good.token_source) == {"usage"}
            assert set(good.stamp) <= {"packet", "kernel"}
            _spans_are_those_of(reader, trial, point, good)
        assert all(not reader.spans(other.id) for other in row.trials[:-1]), "transformers sends none"
    assert {engine["label"] for engine in report["models"][0]["engines"]} == {trial.engine for trial in row.trials}


def _spans_are_those_of(reader: Reader, trial: TrialRow, point: PointRow, good: Requests) -> None:
    """Every good request has the span that vLLM sent of it, by protobuf over HTTP, within its own life on our clock."""
    assert trial.telemetry["spans"]["notes"] == []
    prefix = point.outcome["trace_prefix"]
    told = {one.trace_id: one for one in reader.spans(trial.id, prefix) if one.name == "llm_request"}
    for index, sent_ns, finished_ns in zip(good.index, good.sent_ns, good.finished_ns, strict=True):
        one = told[f"{prefix}{index:016x}"]
        assert one.service == "vllm"
        assert one.attributes["gen_ai.usage.prompt_tokens"] == 16
        assert one.attributes["gen_ai.usage.completion_tokens"] == 8
        inside_ns = 1e9 * sum(one.attributes[f"gen_ai.latency.time_in_{part}"] for part in PARTS)
        assert 0 < inside_ns <= finished_ns - sent_ns
        assert sent_ns - CLOCKS_NS <= one.began_ns <= one.ended_ns <= finished_ns + CLOCKS_NS
    explained = explain_point(reader, reader.run("last"), trial, point)
    assert isinstance(explained, PointExplained)
    assert set(explained.explanation.shares.basis) == {BASES.index("spans")}
