"""From a step's logits to what its requests get: the arg max where that is all that is asked, else the sampler."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from redline.runtime.assemble import Place
from redline.runtime.request import Request
from redline.runtime.step import Sampled


def choose(logits: torch.Tensor, places: list[Place]) -> list[Sampled]:
    """`logits` [L, vocab] float32, rows as in `places`. One entry per place that draws or that tells of the prompt."""
    if not logits.shape[0]:
        return []
    # the largest is NaN when any is
    best, tokens = (found.tolist() for found in logits.max(-1))
    found: list[Sampled] = []
    sampler_rows: list[tuple[int, Sampled]] = []
    for place in places:
        request = place.chunk.request
        if not place.draws and not _tells_of_prompt(place):
            continue
        sampled = Sampled(request, [])
        found.append(sampled)
        first, last = place.first, place.first + place.prompt + place.draws
        if any(value != value for value in best[first:last]):
            sampled.fault = "nan"
            continue
        if _tells_of_prompt(place):
            sampled.prompt_logprobs = _prompt(logits, place)
        first += place.prompt
        if request.sampling.plain_greedy and request.matcher is None:
            sampled.tokens = accepted(place.chunk.draft, tokens[first:last])
        elif place.draws == 1:
            sampler_rows.append((first, sampled))
        elif place.draws:
            draft = place.chunk.draft
            _take(sampled, _sampler().verify(logits[first:last], _row(request), draft, None))
    if sampler_rows:
        at = torch.tensor([row for row, _ in sampler_rows])
        drawn = _sampler().sample(logits[at], [_row(sampled.request) for _, sampled in sampler_rows])
        for (_, sampled), one in zip(sampler_rows, drawn, strict=True):
            _take(sampled, [one])
    return found


def accepted(draft: tuple[int, ...], greedy: list[int]) -> list[int]:
    """The guesses that are what would have been chosen anyway, and the token after them."""
    right = 0
    while right < len(draft) and draft[right] == greedy[right]:
        right += 1
    return greedy[: right + 1]


def _tells_of_prompt(place: Place) -> bool:
    """Log-probabilities of prompt tokens, or of the first one that there are none."""
    request = place.chunk.request
    return request.sampling.prompt_logprobs is not None and (place.prompt > 0 or place.chunk.start == 0)


def _prompt(logits: torch.Tensor, place: Place) -> list[Any]:
    """Of the tokens after those of the chunk; over all chunks that is one entry per prompt token, the first None."""
    chunk = place.chunk
    told: list[Any] = [None] if chunk.start == 0 else []
    if place.prompt:
        targets = chunk.request.tokens[chunk.start + 1 : chunk.start + 1 + place.prompt]
        rows = logits[place.first : place.first + place.prompt]
        told += _sampler().prompt_logprobs(rows, targets, chunk.request.sampling.prompt_logprobs)
    return told


def _take(sampled: Sampled, drawn: list[Any]) -> None:
    for one in drawn:
        if one.fault:
            sampled.fault = one.fault
            return
        sampled.tokens.append(one.token)
        if one.logprob is not None:
            sampled.logprobs.append(one.logprob)


def _row(request: Request) -> Any:
    return _sampler().Row(request.sampling, request.tokens, request.prompt_len, request.matcher)


def _sampler() -> Any:
    """Imported when first needed: an engine that only answers greedily starts without it."""
    return importlib.import_module("redline.runtime.sampler")
