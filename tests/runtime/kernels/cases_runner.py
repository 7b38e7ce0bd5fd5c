"""Run by `test_against_torch.py` with TRITON_INTERPRET=1: the engine on Triton kernels says what plain torch says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.kernels.choose import Call, Chooser
from redline.runtime.kernels.triton import TritonKernels
from redline.runtime.linear import Plain
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


def test_the_fastest_way_is_taken(tmp_path: Path) -> None:
    """Times are made up here; that every candidate runs and computes the same is not."""
    small_checkpoint(tmp_path)
    config = EngineConfig(model=tmp_path, dtype="float32", device="cpu", kernels="triton", kv_cache_tokens=2048)
    runner = GpuRunner(replace(config, page_size=16, max_num_seqs=2, max_model_len=256))
    kernels, model = runner.kernels, runner.model
    assert isinstance(kernels, TritonKernels)
    for layer in model.layers:
        layer.qkv, layer.o = Plain(layer.qkv.dequantized().contiguous()), Plain(layer.o.dequantized().contiguous())
    seen: list[str] = []

    def timer(call: Call, count: int) -> float:
        call(0)
        call(count - 1)
        seen.append("")
        return 1.0 / len(seen)  # the later, the faster

    chooser = Chooser(kernels, model, timer=timer, budget_s=1e9)
    chooser.choose(runner.setup.kv, [1, 2, 3], 16, runner.limits.pages)
    assert {key[0] for key in kernels.products} == {1, 2}
    assert set(kernels.splits) == {1, 2, 3}
    assert kernels.splits[3] == kernels.splits[2]
    assert "attention (2 rows, context 1024)" in chooser.notes
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(kernels.linear(x, model.layers[0].qkv), model.layers[0].qkv.apply(x), atol=1e-5)
    late = Chooser(kernels, model, timer=timer, budget_s=-1.0)
    assert late.best("anything", {"usual": lambda i: i, "other": lambda i: i}, 1) == "usual"
    assert "no time" in late.notes["anything"]
