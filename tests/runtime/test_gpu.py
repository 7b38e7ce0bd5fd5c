"""The GPU runner's bookkeeping, on the CPU: rows that advance themselves, steps ahead of their tokens, membership."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from redline.errors import EnvironmentFault, Unsupported, UsageError
from redline.runtime.config import EngineConfig, SpeculationConfig
from redline.runtime.gpu import GpuRunner, is_device_fault
from redline.runtime.request import Request, Sampling
from redline.runtime.sampler import Row, prompt_logprobs, verify
from redline.runtime.step import Chunk, RunnerBroken, RunnerOutOfMemory, Step
from tests.runtime.answers import CASES, answers, right_answers, small_config


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineConfig]:
    folder = tmp_path_factory.mktemp("model")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield small_config(folder)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kv_cache_tokens", [400, 72])
@pytest.mark.parametrize("run_ahead", [0, 1, 2])
def test_same_text_as_each_alone(config: EngineConfig, run_ahead: int, kv_cache_tokens: int) -> None:
    """With little memory requests are preempted; with steps ahead, tokens are known to the device first."""
    config = replace(config, run_ahead=run_ahead, kv_cache_tokens=kv_cache_tokens)
    runner = GpuRunner(config)
    right = right_answers(runner.model, CASES)
    assert answers(runner, config, CASES) == right


def request_of(prompt: list[int], row: int, **sampling: object) -> Request:
    request = Request(str(row), prompt, Sampling(**sampling), lambda _: None)  # type: ignore[arg-type]
    request.row, request.pages = row, [1 + 4 * row, 2 + 4 * row, 3 + 4 * row, 4 + 4 * row]
    return request


def test_what_it_held_is_free_when_its_loop_ends(config: EngineConfig) -> None:
    """By itself: a collection may come too late for the next model."""
    runner = GpuRunner(config)
    held = [weakref.ref(one) for one in (runner.setup.kv[0][0], runner.model.embedding, runner.decoder.tokens)]
    gc.disable()
    try:
        answers(runner, config, CASES[:1])
        assert [one() for one in held] == [None] * 3
    finally:
        gc.enable()
    assert runner.resolved()["dtype"] == "float32"
    runner.close()
    with pytest.raises(RunnerBroken, match="closed"):
        runner.launch(Step(1, [], 0))


def test_draft_is_verified_and_the_row_goes_on(config: EngineConfig) -> None:
    runner = GpuRunner(config)
    [right] = right_answers(runner.model, [([7, 8, 9], Sampling(max_tokens=8, temperature=0))])
    request = request_of([7, 8, 9], 0, temperature=0)
    first = runner.collect(runner.launch(Step(1, [Chunk(request, 0, 3, True)], 3)))
    assert first[0].tokens == right[:1]
    request.tokens += right[:1]
    draft = (right[1], right[2], (right[3] + 1) % 300)
    step = Step(2, [Chunk(request, 3, 4, True, draft)], 4)
    got = runner.collect(runner.launch(step))
    assert got[0].tokens == right[1:4]
    request.tokens += right[1:4]
    ahead = [runner.launch(Step(n, [Chunk(request, 3 + n, 1, True)], 1)) for n in (3, 4)]
    assert [runner.collect(flight)[0].tokens for flight in ahead] == [right[4:5], right[5:6]]
    assert verify(torch.zeros(1, 300), Row(request.sampling, request.tokens, 3), ())[0].token == 0


def test_prompt_logprobs_come_from_every_chunk(config: EngineConfig) -> None:
    runner = GpuRunner(config)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    asked = request_of(prompt, 1, temperature=0, prompt_logprobs=1)
    told = []
    for start, length in ((0, 5), (5, 3)):
        step = Step(start, [Chunk(asked, start, length, start + length == 8)], length)
        [sampled] = runner.collect(runner.launch(step))
        told += sampled.prompt_logprobs
        assert bool(sampled.tokens) is (start == 5)
    hidden = [_logits(runner, prompt[:n]) for n in range(1, 8)]
    right = prompt_logprobs(torch.cat(hidden), prompt[1:], 1)
    assert [one.token for one in told if one] == prompt[1:]
    assert [one.logprob for one in told if one] == pytest.approx([one.logprob for one in right], abs=1e-4)


def _logits(runner: GpuRunner, tokens: list[int]) -> torch.Tensor:
    from tests.runtime.answers import _whole

    with torch.inference_mode():
        kv = runner.model.allocate_kv(9, 8, "cpu")
        return runner.model.logits(runner.model.forward(_whole(tokens), kv))


def test_nan_is_told_and_the_others_go_on(config: EngineConfig) -> None:
    runner = GpuRunner(config)
    sick, well = request_of([5, 6], 0, temperature=0), request_of([7, 8, 9], 1, temperature=0)
    runner.model.embedding[5] = float("nan")
    step = Step(1, [Chunk(sick, 0, 2, True), Chunk(well, 0, 3, True)], 5)
    first, second = runner.collect(runner.launch(step))
    assert (first.tokens, first.fault) == ([], "nan")
    assert second.tokens
    assert not second.fault


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), RunnerOutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RunnerBroken),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_faults_of_the_device(
    config: EngineConfig, raised: Exception, told: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = GpuRunner(config)
    request = request_of([7, 8, 9], 0, temperature=0)

    def fails(*_: object) -> None:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(runner.model, "forward", fails)
        with pytest.raises(told):
            runner.launch(Step(1, [Chunk(request, 0, 3, True)], 3))
    again = Step(2, [Chunk(request, 0, 3, True)], 3)
    if told is RunnerBroken:
        with pytest.raises(RunnerBroken):  # nothing after a device fault can be trusted
            runner.launch(again)
    else:
        assert runner.collect(runner.launch(again))[0].tokens


def test_other_runtime_errors_are_no_device_faults() -> None:
    assert is_device_fault(RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"))
    assert not is_device_fault(RuntimeError("expected a tensor"))


def test_what_cannot_be_is_refused(config: EngineConfig) -> None:
    with pytest.raises(Unsupported, match="fp8"):
        GpuRunner(replace(config, kv_cache_dtype="fp8"))
    with pytest.raises(UsageError, match="max-model-len"):
        GpuRunner(replace(config, max_model_len=100_000))
    with pytest.raises(EnvironmentFault, match="KV"):
        GpuRunner(replace(config, kv_cache_tokens=16))
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentFault, match="no GPU"):
            GpuRunner(replace(config, device="cuda"))


def test_a_draft_models_share_of_the_memory_is_kept_for_it(
    config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = GpuRunner(config).setup
    weights = setup.model.nbytes
    room = 400 * 8 * setup.shape.kv_bytes(4)
    monkeypatch.setattr(setup, "device", torch.device("cuda"))
    monkeypatch.setattr(setup, "_left_for_kv", lambda *_: weights + room)
    setup.config = replace(config, kv_cache_tokens=0)
    alone, _ = setup._pages(4, 24, 64)
    setup.config = replace(setup.config, speculation=SpeculationConfig("draft", draft_model=config.model))
    beside, _ = setup._pages(4, 24, 64)
    assert alone > 400
    assert 195 <= beside <= 200  # half of the room is the draft model's, which is as large here as the model itself
