"""Real vLLM (the CPU build, in a virtual environment of its own) beside transformers on the bundled model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from redline.store.read import Reader
from tests.e2e.program import SHORT, run, stored

VLLM = Path(os.environ.get("REDLINE_VLLM_PYTHON") or Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; get it with `make vllm`"),
]


def test_transformers_against_vllm(tmp_path: Path) -> None:
    flags = ["--model", "bundled:tiny", "--engines", "transformers,vllm", "--concurrency", "1,8", *SHORT]
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
    assert {engine["label"] for engine in report["models"][0]["engines"]} == {trial.engine for trial in row.trials}
