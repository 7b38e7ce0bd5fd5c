"""Run by `test_against_torch.py`: nothing is compiled while serving. What a start-up on a GPU launches is launched here
by the same code, then traffic of many kinds: no launch of it may have a key that the start-up had not."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from redline.runtime import chunk_graphs, graph
from redline.runtime.chunk_graphs import ChunkGraphs
from redline.runtime.config import EngineConfig, SpeculationConfig
from redline.runtime.draft import DraftProposer
from redline.runtime.gpu import GpuRunner
from redline.runtime.graph import buckets_upto
from redline.runtime.kernels import triton, triton_step
from redline.runtime.kernels.choose import Call, Chooser
from redline.runtime.kernels.triton import TritonKernels
from redline.runtime.kernels.triton_step import DecodeStep, suits
from redline.runtime.kernels.warm import Start, first_launches
from redline.runtime.linear import Fp8, Plain
from redline.runtime.loop import EngineLoop
from redline.runtime.ngram import NgramProposer
from redline.runtime.request import Output, Request, Sampling
from tests.runtime.kernels.launches import Launches, recorded

SEQUENCES, BATCHED, LONGEST, PAGE, VOCAB = 300, 2048, 2048, 32, 300


@dataclass(frozen=True)
class Family:
    heads: int = 8
    kv_heads: int = 2
    qk_norm: bool = False
    window: bool = False
    fp8: bool = False
    fused: bool = True


FAMILIES = {
    "llama": Family(),
    "odd heads": Family(heads=9, kv_heads=3),
    "qwen3": Family(qk_norm=True),
    "windows": Family(window=True, kv_heads=8),
    "fp8": Family(fp8=True),
    "no fused steps": Family(fused=False),
}


def checkpoint(folder: Path, family: Family) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = "qwen3" if family.qk_norm else "mistral" if family.window else "llama"
    more: dict[str, Any] = {"sliding_window": 64} if family.window else {}
    config = AutoConfig.for_model(
        kind,
        vocab_size=VOCAB,
        hidden_size=family.heads * 16,
        intermediate_size=352,
        num_hidden_layers=1,
        num_attention_heads=family.heads,
        num_key_value_heads=family.kv_heads,
        head_dim=16,
        max_position_embeddings=LONGEST,
        eos_token_id=VOCAB - 1,
        **more,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]


class KeptRunner(GpuRunner):
    """Outlives the loops that it is used in."""

    def close(self) -> None:
        pass


def started(family: Family, folder: Path, launches: Launches, monkeypatch: pytest.MonkeyPatch) -> KeptRunner:
    """All that a start on a GPU launches, in its order; a captured graph is a call."""
    checkpoint(folder, family)
    config = EngineConfig(model=folder, dtype="bfloat16", device="cpu", kernels="triton", page_size=PAGE)
    config = replace(config, max_num_seqs=SEQUENCES, max_num_batched_tokens=BATCHED, max_model_len=LONGEST)
    runner = KeptRunner(replace(config, kv_cache_tokens=SEQUENCES * 256))
    setup, kernels = runner.setup, runner.kernels
    assert isinstance(kernels, TritonKernels)
    kernels.pdl = setup.draw.pdl = True  # type: ignore[attr-defined]
    libraries_are_quick(monkeypatch)
    on_a_gpu(runner, family.fp8)
    setup.kv = runner.decoder.kv = [(k.clone(), v.clone()) for k, v in setup.kv]
    start = Start(PAGE, SEQUENCES, LONGEST, setup.dtype, setup.kv_dtype, setup.device, family.fp8, family.fused)
    for call in first_launches(kernels, setup.draw, setup.shape, start):
        call()
    step = None
    if family.fused:
        assert suits(runner.model)
        step = DecodeStep(runner.model, kernels)
    setup.step = runner.decoder.step = step
    monkeypatch.setattr(Chooser, "compile", lambda self, calls: [call() for call in calls])
    Chooser(kernels, runner.model, step, timer=later_is_faster(), budget_s=1e9).choose(
        setup.kv, buckets_upto(SEQUENCES), PAGE, runner.limits.pages, LONGEST
    )
    together = set(launches.keys)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    for module in (graph, chunk_graphs):
        monkeypatch.setattr(module, "captured", captured)
    runner.chunks = ChunkGraphs(runner.decoder, BATCHED, SEQUENCES)
    runner.capture()
    assert launches.keys == together, "compiled one after the other, where it could have been beside others"
    return runner


def libraries_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their products are zeros, too."""

    def scaled(x: torch.Tensor, scales: torch.Tensor, weight: Fp8, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(x.shape[0], weight.weight.shape[0], dtype=dtype)

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros(x.shape[0], weight.shape[0], dtype=x.dtype)

    for module in (triton, triton_step):
        monkeypatch.setattr(module, "scaled_product", scaled)
    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(torch, "mm", lambda x, y, out: out.zero_())


def captured(work: Callable[[], object], pool: object = None) -> SimpleNamespace:
    work()
    return SimpleNamespace(replay=work)


def later_is_faster() -> Callable[[Call, int], float]:
    count = 0

    def timer(call: Call, calls: int) -> float:
        nonlocal count
        count += 1
        call(0)
        return 1.0 / count

    return timer


def on_a_gpu(runner: GpuRunner, fp8: bool) -> None:
    """Weights as they are there: dense ones are not packed, float8 ones are multiplied as they are."""

    def of(weight: Any) -> Any:
        dense = weight.dequantized().to(torch.bfloat16).contiguous()
        if not fp8:
            return Plain(dense)
        made = Fp8.quantize(dense)
        made.native = True
        return made

    for layer in runner.model.layers:
        layer.qkv, layer.o, layer.gate_up, layer.down = map(of, (layer.qkv, layer.o, layer.gate_up, layer.down))
    runner.model.head = Plain(runner.model.head.dequantized().to(torch.bfloat16).contiguous())


def test_a_draft_model_compiles_nothing_while_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch) as launches:
        checkpoint(tmp_path, Family(heads=6))
        config = EngineConfig(model=tmp_path, dtype="bfloat16", device="cpu", kernels="triton", page_size=PAGE)
        setup = GpuRunner(replace(config, max_num_seqs=4, max_model_len=LONGEST, kv_cache_tokens=8192)).setup
        launches.keys.clear()
        start = Start(PAGE, 4, LONGEST, setup.dtype, setup.dtype, setup.device)
        for call in first_launches(setup.kernels, setup.draw, setup.shape, start):  # type: ignore[arg-type]
            call()
        before = set(launches.keys)
        model = setup.model
        monkeypatch.setattr(model, "allocate_kv", lambda *_: setup.kv)
        proposer = DraftProposer(model, pages=200, page_size=PAGE, device="cpu", budget=4000)
        for lengths in ((3,), (31, 32, 33), (700, 1, 2), (65, 1000, 4, 5), (2,) * 20):
            requests = [Request(f"{lengths}{i}", prompt_of(n), Sampling(), print) for i, n in enumerate(lengths)]
            for i, request in enumerate(requests):
                request.pages = list(range(1 + 9 * i, 2 + 9 * i + (len(request.tokens) + 8) // PAGE))
            proposer.propose(requests, 3)
            assert all(request.draft for request in requests)
        assert not launches.keys - before


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_compiled_while_serving(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(monkeypatch) as launches:
        runner = started(FAMILIES[family], tmp_path, launches, monkeypatch)
        told = []
        for traffic in (alone, staggered, told_of_prompts, guessed):
            before = set(launches.keys)
            traffic(runner)
            told += [f"{traffic.__name__}: {name} {key}" for name, key in sorted(launches.keys - before)]
        assert not told, "\n".join(told)


WAYS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.9, "top_k": 20},
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"temperature": 0.9, "logprobs": 2},
    {"temperature": 0.0, "min_tokens": 4, "hold_ids": frozenset({0})},
    {"temperature": 0.0, "logit_bias": ((5, 3.0),)},
)


class Anything:
    """A grammar that allows every token."""

    def advance(self, token: int) -> None: ...

    def finished(self) -> bool:
        return False

    def fill(self, words: memoryview) -> None:
        for i in range(len(words)):
            words[i] = 0xFFFFFFFF

    def allowed(self, tokens: Sequence[int]) -> int:
        return len(tokens)

    def rollback(self, tokens: int) -> None: ...


def alone(runner: GpuRunner) -> None:
    """Prompts of many lengths, one after the other; then again, hitting their own prefixes."""
    for _ in range(2):
        for length in (1, 2, 5, 16, 17, 33, 64, 65, 129, 250, 600, 1023, 1024, 1025, 1500, 2030):
            serve(runner, [prompt_of(length)], WAYS[:1], tokens=3)


def staggered(runner: GpuRunner) -> None:
    """Every few decodes a prompt that no graph holds: eager steps beside 1 to 299 decodes."""
    for count in (2, 3, 4, 6, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64, 65, 100, 128, 255, 256, 299):
        serve(runner, [prompt_of(1 + n % 7) for n in range(count)] + [prompt_of(1990)], WAYS, tokens=6)
    source = random.Random(1)
    lengths = [source.choice((1, 3, 20, 70, 128, 128, 300, 1100)) for _ in range(200)]
    serve(runner, [prompt_of(length) for length in lengths], WAYS, tokens=4, matcher=Anything())


def told_of_prompts(runner: GpuRunner) -> None:
    """Log-probabilities of prompts: steps of any size without a graph."""
    for lengths in ((1, 2), (4,), (9, 1, 1), (40, 3), (200, 7, 1), (700, 700)):
        for _ in range(2):
            serve(runner, [prompt_of(length) for length in lengths], ({"prompt_logprobs": 1},), tokens=2)


def guessed(runner: GpuRunner) -> None:
    for count in (1, 3, 20, 90, 300):
        serve(runner, [prompt_of(12) for _ in range(count)], WAYS[:3], tokens=12, guesses=True)


_source = random.Random(7)


def prompt_of(length: int) -> list[int]:
    return [_source.randrange(VOCAB - 1) for _ in range(length)]


def serve(
    runner: GpuRunner,
    prompts: Sequence[list[int]],
    ways: Sequence[dict[str, Any]],
    *,
    tokens: int,
    guesses: bool = False,
    matcher: Any = None,
) -> None:
    """The last prompts come when the first ones decode already."""
    speculation = SpeculationConfig("ngram", tokens=3, adaptive=False) if guesses else None
    config = EngineConfig(model=Path(), speculation=speculation)
    loop = EngineLoop(runner, config=config, proposer=NgramProposer(1, 2) if guesses else None)
    ended, going = threading.Semaphore(0), threading.Event()
    faults: list[str] = []

    def sink(output: Output) -> None:
        going.set()
        if output.finish is not None:
            faults.extend(filter(None, [output.error]))
            ended.release()

    def submit(i: int) -> None:
        sampling = Sampling(max_tokens=tokens, seed=i, **ways[i % len(ways)])
        loop.submit(Request(str(i), list(prompts[i]), sampling, sink, matcher=matcher if i % 5 == 0 else None))

    first = max(1, len(prompts) * 2 // 3)
    for i in range(first):
        submit(i)
    loop.start()
    going.wait(60)
    for i in range(first, len(prompts)):
        submit(i)
    for _ in prompts:
        assert ended.acquire(timeout=120), loop.failure
    loop.stop()
    assert not faults, faults[0]
    assert not loop.failure
