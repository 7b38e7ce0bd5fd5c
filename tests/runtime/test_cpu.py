"""The CPU's runner: what it chooses, how it verifies drafts, what it hands to the sampler, what it says of NaN."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from redline.errors import EnvironmentFault, Unsupported, UsageError
from redline.runtime import choose_tokens, cpu_limits
from redline.runtime.architecture import read_config
from redline.runtime.config import EngineConfig
from redline.runtime.cpu import CpuRunner
from redline.runtime.request import Request, Sampling
from redline.runtime.step import Chunk, Sampled, Step
from tests.runtime.families import Driver, asked, loaded, prompt, saved

BUNDLED = Path(str(files("redline") / "recipes" / "models"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    found = tmp_path_factory.mktemp("model")
    saved("llama-gqa", found)
    return found


@pytest.fixture(scope="module")
def runner(folder: Path) -> CpuRunner:
    return CpuRunner(EngineConfig(model=folder, kv_cache_tokens=1024, page_size=4))


def run(runner: CpuRunner, *chunks: Chunk) -> list[Sampled]:
    """One step; what was sampled is appended to the requests."""
    done = runner.collect(runner.launch(Step(0, chunks, sum(chunk.length for chunk in chunks))))
    for sampled in done:
        sampled.request.tokens += sampled.tokens
    return done


def rest(request: Request) -> Chunk:
    """All tokens whose KV is not written, and sample."""
    chunk = Chunk(request, request.computed, len(request.tokens) - request.computed, samples=True)
    request.computed = len(request.tokens)
    return chunk


def greedy(folder: Path, tokens: list[int], count: int) -> list[int]:
    request = asked(tokens, range(1, 60))
    Driver(loaded(folder)).decode(request, count)
    return request.tokens[len(tokens) :]


def test_writes_the_models_greedy_text(runner: CpuRunner, folder: Path) -> None:
    """Two requests, the second prefilled in chunks that sample nothing while the first decodes."""
    first, second = asked(prompt(10, 1), range(1, 30)), asked(prompt(25, 2), range(40, 70))
    run(runner, rest(first))
    for start in (0, 8, 16):
        assert [s.request for s in run(runner, rest(first), Chunk(second, start, 8, samples=False))] == [first]
        second.computed = start + 8
    for _ in range(12):
        assert [s.request for s in run(runner, rest(first), rest(second))] == [first, second]
    assert first.tokens[10:] == greedy(folder, prompt(10, 1), 16)
    assert second.tokens[25:] == greedy(folder, prompt(25, 2), 12)


@pytest.mark.parametrize("right", [0, 1, 3, 4])
def test_a_draft_is_accepted_up_to_its_first_wrong_guess(runner: CpuRunner, folder: Path, right: int) -> None:
    tokens, count = prompt(12, right), 20
    wanted = greedy(folder, tokens, count)
    request = asked(tokens, range(1, 30))
    run(runner, rest(request))
    while len(request.tokens) < 12 + count - 5:
        known = len(request.tokens) - 12
        guess = wanted[known : known + 4]
        if right < 4:
            guess[right] = (guess[right] + 1) % 199
        start = len(request.tokens) - 1
        (sampled,) = run(runner, Chunk(request, start, 5, samples=True, draft=tuple(guess)))
        assert sampled.tokens == wanted[known : known + right + 1]
    assert request.tokens[12:] == wanted[: len(request.tokens) - 12]


def test_greedy_steps_never_load_the_sampler(runner: CpuRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redline.runtime.sampler", None)
    request = asked(prompt(5), range(1, 9))
    assert run(runner, rest(request))[0].tokens


def test_the_middle_of_a_prompt_alone_samples_nothing(runner: CpuRunner) -> None:
    assert run(runner, Chunk(asked(prompt(9), range(1, 9)), 0, 4, samples=False)) == []


class _Sampler(SimpleNamespace):
    """Stands in for `redline.runtime.sampler`: always the second-best token, and notes what it was asked."""

    def __init__(self) -> None:
        super().__init__(asked=[])

    def Row(self, sampling: Sampling, tokens: Sequence[int], prompt_len: int, matcher: Any) -> Any:
        return SimpleNamespace(sampling=sampling, tokens=list(tokens), prompt_len=prompt_len, matcher=matcher)

    def sample(self, logits: torch.Tensor, rows: Sequence[Any]) -> list[Any]:
        assert len(logits) == len(rows)
        self.asked += rows
        return [SimpleNamespace(token=int(row.topk(2).indices[1]), logprob=None, fault="") for row in logits]

    def verify(self, logits: torch.Tensor, row: Any, draft: Sequence[int], probs: None) -> list[Any]:
        assert len(logits) == len(draft) + 1
        self.asked.append((row, tuple(draft)))
        return [SimpleNamespace(token=7, logprob=("told", 7), fault="")]

    def prompt_logprobs(self, logits: torch.Tensor, targets: Sequence[int], top: int) -> list[Any]:
        chosen = torch.log_softmax(logits, -1)
        return [(target, round(chosen[i, target].item(), 4), top) for i, target in enumerate(targets)]


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> _Sampler:
    found = _Sampler()
    monkeypatch.setattr(choose_tokens, "_sampler", lambda: found)
    return found


def drawing(tokens: list[int], pages: range, **sampling: Any) -> Request:
    request = Request("test", tokens, Sampling(**sampling), lambda _: None)
    request.pages = list(pages)
    return request


def test_rows_that_are_not_greedy_go_to_the_sampler(runner: CpuRunner, folder: Path, sampler: _Sampler) -> None:
    plain, drawn = asked(prompt(9, 1), range(1, 9)), drawing(prompt(9, 1), range(20, 29))
    first, second = run(runner, rest(plain), rest(drawn))
    assert first.tokens == greedy(folder, prompt(9, 1), 1) != second.tokens
    assert [(row.prompt_len, row.tokens[:9]) for row in sampler.asked] == [(9, prompt(9, 1))]


def test_drafts_of_rows_that_are_not_greedy_are_verified_by_the_sampler(runner: CpuRunner, sampler: _Sampler) -> None:
    request = drawing(prompt(9), range(1, 9))
    (sampled,) = run(runner, Chunk(request, 0, 12, samples=True, draft=(4, 5, 6)))
    told: list[Any] = [("told", 7)]
    assert (sampled.tokens, sampled.logprobs) == ([7], told)
    assert sampler.asked[0][1] == (4, 5, 6)


@pytest.mark.parametrize("sizes", [[20], [7, 7, 6], [1, 18, 1]])
def test_prompt_logprobs_over_chunks(runner: CpuRunner, folder: Path, sampler: _Sampler, sizes: list[int]) -> None:
    """One entry per prompt token, the first None, however the prompt was cut."""
    tokens = prompt(20)
    request = asked(tokens, range(1, 9), prompt_logprobs=2)
    told: list[Any] = []
    for size in sizes:
        last = request.computed + size == 20
        for sampled in run(runner, Chunk(request, request.computed, size, samples=last)):
            told += sampled.prompt_logprobs
        request.computed += size
    logits = Driver(loaded(folder)).feed((asked(tokens, range(1, 9)), 20))[0]
    wanted = torch.log_softmax(logits, -1)
    assert told[0] is None
    assert [entry[0] for entry in told[1:]] == tokens[1:]
    for i, entry in enumerate(told[1:]):
        assert entry[1] == pytest.approx(wanted[i, tokens[i + 1]].item(), abs=2e-4)
    assert len(request.tokens) == 21


def test_nan_is_a_fault_of_its_row_alone(runner: CpuRunner, folder: Path) -> None:
    """Poisoned K of one request's pages; its neighbour answers as ever."""
    well, ill = asked(prompt(9, 1), range(1, 9)), asked(prompt(9, 2), range(20, 29))
    run(runner, rest(well), rest(ill))
    runner._kv[0][0][20].fill_(float("nan"))
    first, second = run(runner, rest(well), rest(ill))
    assert (first.fault, second.fault, second.tokens) == ("", "nan", [])
    assert well.tokens[9:] == greedy(folder, prompt(9, 1), 2)
    runner._kv[0][0][20].zero_()


def test_tokens_that_only_a_device_would_know_are_refused(runner: CpuRunner) -> None:
    with pytest.raises(RuntimeError, match="not known yet"):
        run(runner, Chunk(asked(prompt(4), range(1, 3)), 4, 1, samples=True))


def test_runs_on_another_thread(runner: CpuRunner, folder: Path) -> None:
    request, seen = asked(prompt(9), range(1, 9)), []

    def work() -> None:
        run(runner, rest(request))
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert request.tokens[9:] == greedy(folder, prompt(9), 1)
    assert seen == [1]


def test_limits_and_what_was_chosen(runner: CpuRunner) -> None:
    limits = runner.limits
    assert (limits.pages, limits.page_size, limits.max_model_len, limits.vocab_size) == (257, 4, 512, 199)
    told = runner.resolved()
    assert told["threads"] == "1 (the model is small)"
    assert told["weights"].startswith("float32")
    assert told["kv"] == "256 pages of 4 tokens"


@pytest.mark.parametrize("quantization", ["auto", "int8", "fp8"])
def test_the_bundled_model_answers(quantization: Any) -> None:
    model = BUNDLED / "redline-tiny"
    runner = CpuRunner(EngineConfig(model=model, quantization=quantization, kv_cache_tokens=256))
    request = asked(range(10, 30), range(1, 4))
    for _ in range(4):
        run(runner, rest(request))
    assert len(request.tokens) == 24
    assert runner.resolved()["quantization"] == {"auto": "none"}.get(quantization, quantization)


def test_random_weights_need_a_config_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((BUNDLED / "redline-tiny" / "config.json").read_text())
    with pytest.raises(EnvironmentFault, match="safetensors"):
        CpuRunner(EngineConfig(model=tmp_path))
    runner = CpuRunner(EngineConfig(model=tmp_path, load_format="random", kv_cache_tokens=64))
    assert run(runner, rest(asked(range(5), range(1, 3))))[0].fault == ""


@pytest.mark.parametrize(
    ("more", "error", "named"),
    [
        ({"kernels": "triton"}, UsageError, "--kernels triton"),
        ({"kv_cache_dtype": "fp8"}, Unsupported, "--kv-cache-dtype"),
        ({"run_ahead": 1}, UsageError, "--run-ahead"),
        ({"dtype": "float16"}, UsageError, "--dtype float16"),
        ({"max_model_len": 513}, UsageError, "512 positions"),
    ],
)
def test_flags_that_no_cpu_can_follow(folder: Path, more: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        CpuRunner(EngineConfig(model=folder, **more))


class TestLimits:
    def limits(self, folder: Path, monkeypatch: pytest.MonkeyPatch, free: int, **more: Any) -> Any:
        monkeypatch.setattr(cpu_limits, "memory_facts", lambda: {"usable_bytes": free})
        return cpu_limits.choose_limits(EngineConfig(model=folder, **more), read_config(folder), 4)

    def test_pages_fill_their_share_of_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        per_page = 2 * 3 * 2 * 16 * 4 * 16
        assert self.limits(folder, monkeypatch, per_page * 4 * 100, memory_share=0.5).pages == 50 + 1

    def test_no_more_pages_than_requests_can_use(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.limits(folder, monkeypatch, 1 << 40, max_num_seqs=3, max_model_len=100).pages == 3 * 7 + 1

    def test_requests_are_no_longer_than_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.limits(folder, monkeypatch, 1 << 40, kv_cache_tokens=64).max_model_len == 64

    def test_no_memory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(EnvironmentFault, match="no memory for KV"):
            self.limits(folder, monkeypatch, 1000)


class TestThreads:
    @pytest.fixture(autouse=True)
    def _box(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cpu_limits, "affinity", lambda root, online: list(range(8)))
        monkeypatch.setattr(cpu_limits, "cpu_limit", lambda: None)
        monkeypatch.setattr("os.getloadavg", lambda: (1.0, 1.0, 1.0))

    def test_a_small_model_takes_one(self) -> None:
        assert cpu_limits.choose_threads(0, 1 << 20)[0] == 1

    def test_a_large_model_takes_all(self) -> None:
        assert cpu_limits.choose_threads(0, 1 << 30)[0] == 8

    def test_a_quota_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cpu_limits, "cpu_limit", lambda: 2.5)
        assert cpu_limits.choose_threads(0, 1 << 30)[0] == 2

    def test_a_busy_box_leaves_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.getloadavg", lambda: (9.0, 1.0, 1.0))
        assert cpu_limits.choose_threads(0, 1 << 30) == (1, "the load average 9.0 exceeds 8 cores")

    def test_what_was_asked_for_is_taken(self) -> None:
        assert cpu_limits.choose_threads(3, 1)[0] == 3


@pytest.mark.parametrize(
    ("stored", "fast", "weights"),
    [
        ("bfloat16", True, torch.bfloat16),
        ("bfloat16", False, torch.float32),
        ("float16", True, torch.float32),
        ("float32", True, torch.float32),
    ],
)
def test_dtypes(monkeypatch: pytest.MonkeyPatch, stored: str, fast: bool, weights: torch.dtype) -> None:
    monkeypatch.setattr(cpu_limits, "_has_bfloat16", lambda: fast)
    chosen = cpu_limits.choose_dtypes("auto", stored)
    assert (chosen.weights, chosen.activations) == (weights, torch.float32)
