"""Run by `test_against_torch.py` with TRITON_INTERPRET=1: the engine on Triton kernels says what plain torch says."""

from __future__ import annotations

from pathlib import Path

import pytest

from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from tests.runtime.answers import CASES, answers, right_answers, small_checkpoint


@pytest.mark.parametrize("run_ahead", [1])
def test_same_text(run_ahead: int, tmp_path: Path) -> None:
    small_checkpoint(tmp_path)
    config = EngineConfig(
        model=tmp_path,
        dtype="float32",
        device="cpu",
        kernels="triton",
        page_size=8,
        kv_cache_tokens=120,
        max_num_seqs=3,
        max_num_batched_tokens=24,
        max_model_len=64,
        run_ahead=run_ahead,
    )
    runner = GpuRunner(config)
    assert runner.resolved()["kernels"] == "triton"
    cases = CASES[:4]
    assert answers(runner, config, cases) == right_answers(runner.model, cases)
