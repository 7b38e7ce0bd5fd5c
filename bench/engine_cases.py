"""What a table of decode steps does not show, for `engine.py --cases`: the time to the first token after a shared
prefix, and what n-gram speculation gains.

Random weights would never repeat a prompt, so the model is made to: its layers add next to nothing to the residual, and
the head's rows are the embedding's in another order. Each token then has one successor; the text is a walk along it.
Every matrix is read and multiplied as always. A prompt holds a walk of `COPIED` tokens and ends with the token before
it, so the answer first repeats the walk: `all` of the answer, or `half` of it, after which it goes where the prompt
never was. With half, speculation can at best be twice as fast.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from engine import arguments
from engine_own import start

from redline.runtime.config import EngineConfig, SpeculationConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.loop import EngineLoop
from redline.runtime.request import Output, Request, Sampling
from redline.runtime.speculate import proposer_for

COPIED = 256
PREFIX, NEW = 4096, 64


class KeptRunner(GpuRunner):
    """Outlives the loops that it is used in."""

    def close(self) -> None:
        pass


def main() -> int:
    asked = arguments()
    shape, dtype = asked.shapes.split(",")[-1], asked.dtypes.split(",")[0]
    runner = start(shape, dtype, asked.kernels, 64, PREFIX + 1024, asked.seed, asked.kv)
    runner.__class__ = KeptRunner
    print(f"{torch.cuda.get_device_name()}, {shape} {dtype}", flush=True)
    prefix_hits(runner, asked.repeats)
    successors = make_walk(runner)
    for share in ("all", "half"):
        for rows in (1, 64):
            speculation(runner, successors, rows, share, asked.repeats)
    return 0


def prefix_hits(runner: GpuRunner, repeats: int) -> None:
    """One client: a prompt of 4,096 shared tokens and 64 new ones, after one that left the prefix behind."""
    loop = loop_of(runner)
    source, vocab = random.Random(1), runner.limits.vocab_size
    shared = [source.randrange(vocab) for _ in range(PREFIX)]

    def new() -> list[int]:
        return [source.randrange(vocab) for _ in range(NEW)]

    cold = [ask(loop, [[source.randrange(vocab) for _ in range(PREFIX)] + new()], 1)[0] for _ in range(repeats + 1)][1:]
    ask(loop, [shared + new()], 1)
    warm = [ask(loop, [shared + new()], 1)[0] for _ in range(repeats * 3)]
    for name, times in ((f"{PREFIX} new tokens", cold), (f"{PREFIX} shared", warm)):
        spread = " ".join(f"{1000 * one:.2f}" for one in sorted(times))
        print(f"time to first token, {name} + {NEW}: {1000 * statistics.median(times):.2f} ms [{spread}]", flush=True)
    loop.stop()


@torch.inference_mode()
def make_walk(runner: GpuRunner) -> list[int]:
    """Changes the weights in place, which graphs read. The successor of every token: one long cycle."""
    model = runner.model
    for layer in model.layers:
        for weight in (layer.o, layer.down):
            scale = weight.scale if hasattr(weight, "scale") else weight.weight  # type: ignore[attr-defined]
            scale.mul_(1e-3)
    vocab = model.config.vocab_size
    order = list(range(vocab))
    random.Random(3).shuffle(order)
    successors = [0] * vocab
    for one, after in zip(order, [*order[1:], order[0]], strict=True):
        successors[one] = after
    model.embedding.normal_(0, 1)
    model.norm.fill_(1)
    # logits of token t's successor: |embedding of t|
    model.head.weight[torch.tensor(successors, device=model.embedding.device)] = (
        model.embedding / model.config.hidden_size**0.5
    )  # type: ignore[attr-defined]
    return successors


def walk(successors: Sequence[int], start: int, tokens: int) -> list[int]:
    """`tokens` successors."""
    found = []
    for _ in range(tokens):
        start = successors[start]
        found.append(start)
    return found


def speculation(runner: GpuRunner, successors: list[int], rows: int, share: str, repeats: int) -> None:
    copied = COPIED if share == "all" else COPIED // 2
    source = random.Random(rows)
    times: dict[str, list[float]] = {"plain": [], "ngram": []}
    accepted = ""
    for _ in range(repeats):
        first = [source.randrange(runner.limits.vocab_size) for _ in range(rows)]
        prompts = [
            [
                one,
                *walk(successors, one, copied),
                *walk(successors, source.randrange(runner.limits.vocab_size), 32),
                one,
            ]
            for one in first
        ]
        right = [walk(successors, one, COPIED) for one in first]
        for name, taken in times.items():
            loop = loop_of(runner, speculates=name == "ngram")
            seconds, answers = ask(loop, prompts, COPIED)
            taken.append(seconds)
            wrong = sum(a != b for a, b in zip(answers, right, strict=True))
            if wrong:
                print(f"   {name}: {wrong} of {rows} answers are not the walk", flush=True)
            if name == "ngram":
                stats = loop.stats()
                accepted = f"{sum(stats.spec_accepted)} guesses stood"
            loop.stop()
    plain, guessed = (statistics.median(taken) for taken in times.values())
    ratios = " ".join(f"{a / b:.2f}" for a, b in zip(times["plain"], times["ngram"], strict=True))
    print(
        f"{share} of {COPIED} tokens repeat the prompt, {rows} clients: plain {plain:.3f} s, n-gram {guessed:.3f} s, "
        f"{plain / guessed:.2f} times as fast [{ratios}], {accepted}",
        flush=True,
    )


def loop_of(runner: GpuRunner, speculates: bool = False) -> EngineLoop:
    """The runner's rows and pages are free between loops."""
    spec = SpeculationConfig("ngram", tokens=8) if speculates else None
    config = EngineConfig(model=Path(), speculation=spec)
    proposer = proposer_for(spec, runner.limits, no_draft, "cuda") if spec else None
    loop = EngineLoop(runner, config=config, proposer=proposer)
    loop.start()
    return loop


def no_draft(folder: Path) -> object:
    raise AssertionError("n-grams need no second model")


def ask(loop: EngineLoop, prompts: list[list[int]], tokens: int) -> tuple[float, list[list[int]]]:
    """(seconds until all have been answered, the answers)"""
    ended = threading.Semaphore(0)
    answers: list[list[int]] = [[] for _ in prompts]

    def sink(at: int, output: Output) -> None:
        answers[at] += output.tokens
        if output.finish is not None:
            ended.release()

    sampling = Sampling(max_tokens=tokens, temperature=0.0)
    requests = [
        Request(f"{time.monotonic_ns()}-{at}", list(ids), sampling, lambda output, at=at: sink(at, output))  # type: ignore[misc]
        for at, ids in enumerate(prompts)
    ]
    started = time.perf_counter()
    for request in requests:
        loop.submit(request)
    for _ in requests:
        if not ended.acquire(timeout=120):
            raise SystemExit(f"no answer in 120 s: {loop.failure or loop.stats()}")
    return time.perf_counter() - started, answers


if __name__ == "__main__":
    sys.exit(main())
