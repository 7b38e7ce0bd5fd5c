"""Steps that no graph holds, once each before the first request: long prompts, alone and beside decodes, and tokens
that the host chooses.

A kernel is compiled, a library's kernel loaded, and memory taken from the driver where they are first needed, which may
take a second. Here that is before anybody waits. The steps are run by the code that serves, with requests whose pages
are all page 0, which is nobody's. What can be compiled ahead, side by side, was: `kernels/warm.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from redline.runtime.chunk_graphs import TOKENS
from redline.runtime.request import Output, Request, Sampling
from redline.runtime.step import Chunk, Limits, RunnerOutOfMemory, Step

if TYPE_CHECKING:
    from redline.runtime.gpu import GpuRunner

SIZES = (TOKENS[-1] + 16, 2 * TOKENS[-1])
"""Tokens of a step; the largest that may come is added."""
PLACES = (1, 16, 32, 64, 65)
"""Tokens chosen by a step: one for each class of `kernels.triton.few`."""
BY_HOST: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0, "repetition_penalty": 1.1, "frequency_penalty": 0.1, "logit_bias": ((0, 1.0),)},
    {"temperature": 0.8, "top_p": 0.9, "min_p": 0.01, "logprobs": 1},
    {"temperature": 0.8, "presence_penalty": 0.1},
    {"temperature": 0.0, "min_tokens": 8, "hold_ids": frozenset({0})},
)


def rehearse(runner: GpuRunner) -> str:
    """What was left out for want of memory; empty when nothing was."""
    left_out = ""
    for chunks in steps(runner.limits):
        step = Step(0, chunks, sum(chunk.length for chunk in chunks))
        try:
            runner.collect(runner.launch(step))
        except RunnerOutOfMemory as error:
            left_out = f"a step of {step.tokens} tokens did not fit: {error}"
        for chunk in chunks:
            runner.release(chunk.request)
    return left_out


def steps(limits: Limits) -> Iterator[list[Chunk]]:
    sizes = sorted({min(tokens, limits.max_batched_tokens) for tokens in (*SIZES, limits.max_batched_tokens)})
    for i, places in enumerate(PLACES):
        yield _mixed(limits, sizes[i % len(sizes)], min(places, limits.max_seqs))
    few = min(limits.max_seqs, limits.max_batched_tokens // 4)
    if limits.max_model_len < 8 or not few:
        return
    hosts = [_request(limits, row, 3, **way) for row, way in enumerate(BY_HOST[:few])]
    yield [Chunk(request, 0, 3, True) for request in hosts]
    guesses = [_request(limits, row, 2, temperature=float(row)) for row in range(min(2, few))]
    yield [Chunk(request, 1, 4, True, (0, 0, 0)) for request in guesses]
    yield [Chunk(_request(limits, 0, 4, temperature=0.0, prompt_logprobs=1), 0, 4, True)]


def _mixed(limits: Limits, tokens: int, places: int) -> list[Chunk]:
    """`places` - 1 decodes beside prompts, of which one ends."""
    decodes = [_request(limits, row, 2) for row in range(places - 1)]
    chunks = [Chunk(request, 1, 1, True) for request in decodes]
    left = tokens - len(chunks)
    while left > 0 and len(chunks) < limits.max_seqs:
        length = min(left, limits.max_model_len - 1)
        chunks.append(Chunk(_request(limits, len(chunks), length), 0, length, len(chunks) == len(decodes)))
        left -= length
    return chunks


def _request(limits: Limits, row: int, length: int, **sampling: Any) -> Request:
    request = Request(f"rehearsal-{row}", [0] * length, Sampling(**sampling), _nobody)
    request.row, request.pages = row, [0] * (-(-(length + 4) // limits.page_size))
    return request


def _nobody(output: Output) -> None:
    """Hears what nobody asked for."""
