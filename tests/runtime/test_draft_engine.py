"""A draft model's guesses through the engine: the answers keep their distribution, and more guesses stand than of the
most likely token."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from redline.runtime.config import EngineConfig, SpeculationConfig
from redline.runtime.cpu import CpuRunner
from redline.runtime.draft import DraftProposer
from redline.runtime.gpu import GpuRunner
from redline.runtime.loop import EngineLoop
from redline.runtime.model import Model
from redline.runtime.request import Output, Request, Sampling
from tests.runtime.answers import VOCAB, _whole, small_checkpoint
from tests.runtime.chi2 import assert_drawn_from

PROMPT, REQUESTS = [7, 8, 9], 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    small_checkpoint(made)
    return made


def runner_of(kind: type, folder: Path) -> GpuRunner | CpuRunner:
    config = EngineConfig(model=folder, dtype="float32", device="cpu", kernels="torch", page_size=8)
    config = replace(config, kv_cache_tokens=8000, max_num_seqs=128, max_num_batched_tokens=1024, max_model_len=64)
    made: GpuRunner | CpuRunner = kind(config)
    return made


def near(folder: Path) -> Model:
    """A draft model that is not far from the target."""
    model = GpuRunner(EngineConfig(model=folder, dtype="float32", device="cpu", kernels="torch")).model
    noise = torch.Generator().manual_seed(5)
    model.embedding += 0.08 * torch.randn(model.embedding.shape, generator=noise)
    return model


def ask(
    runner: GpuRunner | CpuRunner, draft: Model | None, s: dict[str, object], requests: int
) -> tuple[list[list[int]], float]:
    """(answers, share of the guesses that stood)"""
    limits = runner.limits
    guessing = None if draft is None else DraftProposer(draft, pages=limits.pages, page_size=limits.page_size)
    config = EngineConfig(model=Path(), speculation=SpeculationConfig("draft", tokens=2, adaptive=False))
    loop = EngineLoop(runner, config=config, proposer=guessing)
    ended, answers = threading.Semaphore(0), [list[int]() for _ in range(requests)]

    def sink_of(tokens: list[int]) -> object:
        def sink(output: Output) -> None:
            tokens.extend(output.tokens)
            if output.finish is not None:
                ended.release()

        return sink

    for i, tokens in enumerate(answers):
        sampling = Sampling(max_tokens=4, seed=i * 7919, **s)  # type: ignore[arg-type]
        loop.submit(Request(str(i), list(PROMPT), sampling, sink_of(tokens)))  # type: ignore[arg-type]
    loop.start()
    for _ in answers:
        assert ended.acquire(timeout=200), loop.failure
    stats = loop.stats()
    loop.stop()
    return answers, sum(stats.spec_accepted) / max(1, stats.spec_proposed)


def follows(model: Model, contexts: Sequence[list[int]]) -> torch.Tensor:
    """Probabilities [contexts, V] at temperature 1."""
    kv = model.allocate_kv(9, 8, "cpu")
    with torch.inference_mode():
        logits = torch.cat([model.logits(model.forward(_whole(tokens), kv)) for tokens in contexts])
    return torch.softmax(logits.double(), -1)


@pytest.mark.parametrize("kind", [GpuRunner, CpuRunner])
def test_drawn_answers_keep_their_distribution_and_more_guesses_stand(kind: type, folder: Path) -> None:
    target = GpuRunner(EngineConfig(model=folder, dtype="float32", device="cpu", kernels="torch")).model
    draft = near(folder)
    answers, stood = ask(runner_of(kind, folder), draft, {}, REQUESTS)
    first = follows(target, [PROMPT])
    second = first @ follows(target, [[*PROMPT, token] for token in range(VOCAB)])
    assert_drawn_from([tokens[0] for tokens in answers], first[0].numpy())
    assert_drawn_from([tokens[1] for tokens in answers], second[0].numpy())
    likely = max(range(VOCAB), key=[tokens[0] for tokens in answers].count)
    after = [tokens[1] for tokens in answers if tokens[0] == likely]
    assert_drawn_from(after, follows(target, [[*PROMPT, likely]])[0].numpy())
    _, before = ask(runner_of(kind, folder), draft, {"seeded": True}, 300)
    assert stood > before + 0.1


def test_an_asked_seed_gives_the_text_that_it_gives_without_guesses(folder: Path) -> None:
    guessed, stood = ask(runner_of(GpuRunner, folder), near(folder), {"seeded": True}, 40)
    alone, _ = ask(runner_of(GpuRunner, folder), None, {"seeded": True}, 40)
    assert guessed == alone
    assert stood > 0
