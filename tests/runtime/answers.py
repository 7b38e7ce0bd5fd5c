"""What a runner answers through the engine's loop, and what it must answer: each request alone, nothing cached."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from redline.runtime.batch import Batch
from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.loop import EngineLoop
from redline.runtime.model import Model
from redline.runtime.request import Output, Request, Sampling
from redline.runtime.sampler import Row, sample

VOCAB = 300
Case = tuple[list[int], Sampling]


def small_checkpoint(folder: Path) -> None:
    """A Llama whose weights are large enough that every token of the context matters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.25,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)  # type: ignore[no-untyped-call]


def small_config(folder: Path) -> EngineConfig:
    """Of `small_checkpoint`, made in `folder`; few enough pages and rows that requests wait for them."""
    small_checkpoint(folder)
    return EngineConfig(
        model=folder,
        dtype="float32",
        device="cpu",
        kernels="torch",
        page_size=8,
        kv_cache_tokens=400,
        max_num_seqs=4,
        max_num_batched_tokens=24,
        max_model_len=64,
    )


def _cases() -> list[Case]:
    source = random.Random(1)
    ways: tuple[dict[str, object], ...] = (
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {"temperature": 0.8, "top_k": 5},
        {"temperature": 0.9, "logprobs": 2},
        {"temperature": 0.0, "min_tokens": 4},
        {"temperature": 1.2, "top_p": 0.8},
        {"temperature": 0.0, "logit_bias": ((5, 3.0),)},
        {"temperature": 0.7, "min_p": 0.05, "presence_penalty": 0.5},
    )
    made = []
    for i in range(18):
        prompt = [source.randrange(VOCAB) for _ in range(source.randrange(1, 40))]
        stops = frozenset(source.sample(range(VOCAB), 20))
        way = ways[i % len(ways)]
        sampling = Sampling(
            max_tokens=source.randrange(2, 14),
            seed=source.getrandbits(64),
            stop_ids=stops,
            hold_ids=stops,
            **way,  # type: ignore[arg-type]
        )
        made.append((prompt, sampling))
    return made


CASES = _cases()


def answers(runner: GpuRunner, config: EngineConfig, cases: Sequence[Case]) -> list[list[int]]:
    """All at once."""
    loop = EngineLoop(runner, config=config)
    ended = threading.Semaphore(0)
    found: list[list[int]] = [[] for _ in cases]
    errors: list[str] = []

    def sink_of(tokens: list[int]) -> object:
        def sink(output: Output) -> None:
            tokens.extend(output.tokens)
            if output.finish is not None:
                errors.extend(filter(None, [output.error]))
                ended.release()

        return sink

    for i, ((prompt, sampling), tokens) in enumerate(zip(cases, found, strict=True)):
        loop.submit(Request(str(i), list(prompt), sampling, sink_of(tokens)))  # type: ignore[arg-type]
    loop.start()
    for _ in cases:
        assert ended.acquire(timeout=200), loop.failure
    loop.stop()
    assert not errors, errors
    return found


@torch.inference_mode()
def right_answers(model: Model, cases: Sequence[Case]) -> list[list[int]]:
    """Everything computed anew for every token, with the plain kernels and the sampler."""
    own, model.kernels = model.kernels, TorchKernels()
    found = []
    for prompt, sampling in cases:
        tokens = list(prompt)
        kv = model.allocate_kv(9, 8, "cpu")
        for _ in range(sampling.max_tokens):
            drawn = sample(model.logits(model.forward(_whole(tokens), kv)), [Row(sampling, tokens, len(prompt))])[0]
            tokens.append(drawn.token)
            if drawn.token in sampling.stop_ids:
                break
        found.append(tokens[len(prompt) :])
    model.kernels = own
    return found


def _whole(tokens: list[int]) -> Batch:
    n = len(tokens)
    return Batch(
        ids=torch.tensor(tokens),
        positions=torch.arange(n),
        slots=torch.arange(8, 8 + n),
        starts=torch.tensor([0, n], dtype=torch.int32),
        seq_lens=torch.tensor([n], dtype=torch.int32),
        page_tables=torch.arange(1, 9, dtype=torch.int32)[None],
        logits_at=torch.tensor([n - 1]),
        max_query=n,
        max_seq=n,
        host_starts=[0, n],
        host_seq_lens=[n],
    )
