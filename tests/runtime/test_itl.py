"""Chunks that keep a target, on boxes whose step times are known exactly because the test makes them up."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from redline.runtime.itl import FIRST_CHUNK, ChunkSizer, Work, fit_positive, pairs
from redline.runtime.step import Step

from .fake import Drive, limits

BOXES: dict[str, tuple[float, float, float, float]] = {  # ms: a, b per token, c per token of context, d per pair
    "gpu": (4.0, 0.02, 3e-5, 1e-6),
    "cpu": (0.5, 0.4, 1e-4, 1e-4),
    "flat": (1.0, 0.05, 0.0, 0.0),
}


def box(name: str, rng: random.Random) -> Callable[[Step], float]:
    a, b, c, d = BOXES[name]

    def seconds(step: Step) -> float:
        context = sum(chunk.start + chunk.length for chunk in step.chunks)
        crossed = sum(pairs(chunk.start, chunk.length) for chunk in step.chunks)
        return (a + b * step.tokens + c * context + d * crossed) * rng.uniform(0.98, 1.02) / 1e3

    return seconds


def serve(name: str, target_ms: float | None) -> list[tuple[float, int]]:
    """(milliseconds, prefill tokens) of the steps that decoded, with long prompts coming all the time."""
    rng = random.Random(3)
    drive = Drive(
        limits(pages=6000, page_size=16, max_seqs=16, max_batched_tokens=2048, max_model_len=4000),
        itl_target_ms=target_ms, prefix_caching=False, checked=False,
    )  # fmt: skip
    seen: list[tuple[float, int]] = []
    time_of = box(name, rng)

    def seconds(step: Step) -> float:
        took = time_of(step)
        prefill = sum(chunk.length for chunk in step.chunks if chunk.length > 1)
        if len(step.chunks) > sum(chunk.length > 1 for chunk in step.chunks):
            seen.append((took * 1e3, prefill))
        return took

    drive.runner.seconds = seconds
    for i in range(60):
        drive.add([rng.randrange(50) for _ in range(1200)], max_tokens=20 + i % 30)
    drive.finish()
    return seen


@pytest.mark.parametrize(("name", "target"), [("gpu", 12.0), ("cpu", 40.0), ("flat", 8.0)])
def test_steps_that_decode_stay_within_the_target(name: str, target: float) -> None:
    seen = serve(name, target)
    over = [took for took, _ in seen if took > target]
    assert len(over) <= len(seen) * 0.05
    assert max(took for took, _ in seen) <= target * 1.15
    later = [took for took, prefill in seen[len(seen) // 2 :] if prefill > FIRST_CHUNK * 2]
    assert np.median(later) >= target * 0.75, "the target is there to be used"


def test_without_a_target_steps_are_as_long_as_the_budget_lets_them() -> None:
    assert max(took for took, _ in serve("gpu", None)) > 24


def test_a_target_that_cannot_be_kept_does_not_stop_prompts() -> None:
    seen = serve("gpu", 2.0)
    assert {prefill for _, prefill in seen if prefill} <= set(range(FIRST_CHUNK + 1))


def test_the_first_chunks_are_small() -> None:
    sizer = ChunkSizer(50)
    assert sizer.share(Work(4, 400, 0, 0, 4)).take(0, 5000) == FIRST_CHUNK


def test_a_miss_makes_chunks_small_again() -> None:
    sizer = ChunkSizer(10)
    for _ in range(6):
        sizer.observe(Work(sizer.cap + 1, 10, 100, sizer.cap, 1), 0.001)
    grown = sizer.cap
    sizer.observe(Work(grown + 1, 10, 100, grown, 1), 0.02)
    assert (grown, sizer.cap) == (FIRST_CHUNK * 64, int(FIRST_CHUNK * 64 * 0.45))


def test_chunks_that_tried_nothing_prove_nothing() -> None:
    sizer = ChunkSizer(10)
    for prefill in (FIRST_CHUNK, 3, 3, 3):
        sizer.observe(Work(prefill + 1, 10, 100, prefill, 1), 0.001)
    assert sizer.cap == FIRST_CHUNK * 2


def test_pairs_against_a_count() -> None:
    assert pairs(5, 3) == sum(position + 1 for position in range(5, 8))


def test_the_fit_finds_what_made_the_times() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack(
        [np.ones(60), rng.integers(1, 500, 60), rng.integers(100, 9000, 60), rng.integers(0, 10**6, 60)]
    )
    truth = np.array([2e-3, 2e-5, 1e-7, 1e-9])
    assert np.allclose(fit_positive(rows, rows @ truth), truth, rtol=0.02)


def test_no_coefficient_is_negative() -> None:
    rows = np.array([[1.0, 10, 100, 0], [1.0, 20, 100, 0], [1.0, 30, 100, 0]])
    found = fit_positive(rows, np.array([3e-3, 2e-3, 1e-3]))
    assert min(found) >= 0
    assert np.isfinite(found).all()


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0 ms"):
        ChunkSizer(0)
