"""Steps that are run before the first request: within the limits, and leaving nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from redline.runtime.gpu import GpuRunner
from redline.runtime.kernels.triton import few
from redline.runtime.rehearsal import rehearse, steps
from redline.runtime.step import Limits
from tests.runtime.answers import CASES, answers, right_answers, small_config


def test_answers_after_it_are_the_right_ones(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    runner = GpuRunner(config)
    assert rehearse(runner) == ""
    assert all(known.request is None for known in runner.mirror.rows)
    right = right_answers(runner.model, CASES)
    assert answers(runner, config, CASES) == right


def test_what_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = GpuRunner(small_config(tmp_path))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(runner.model, "forward", full)
    assert "did not fit" in rehearse(runner)


@pytest.mark.parametrize("limits", [(8192, 256, 4096), (8192, 300, 131072), (64, 64, 100), (3, 1, 6), (1, 1, 2)])
def test_steps_are_within_the_limits(limits: tuple[int, int, int]) -> None:
    batched, sequences, longest = limits
    found = list(steps(Limits(100, 32, sequences, batched, longest, 1000)))
    for chunks in found:
        assert 0 < sum(chunk.length for chunk in chunks) <= batched
        assert len({chunk.request.row for chunk in chunks}) == len(chunks) <= sequences
        assert all(chunk.start + chunk.length <= longest for chunk in chunks)
        assert all(len(chunk.request.pages) * 32 >= chunk.start + chunk.length for chunk in chunks)
    chosen = {few(sum(chunk.samples for chunk in chunks)) for chunks in found}
    assert chosen == ({0, 1, 16, 32, 64} if sequences > 64 else {few(n) for n in (1, 16, 32, 64) if n <= sequences})
