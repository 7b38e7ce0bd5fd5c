"""From a step's logits to what its requests get: the arg max where that is all that is asked, else the sampler."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from redline.runtime.assemble import Place
from redline.runtime.request import Request
from redline.runtime.step import Sampled


class Chooser:
    """Keeps the sampler's row of each request that needs one, since it counts tokens as they come."""

    def __init__(self) -> None:
        self._rows: dict[Request, Any] = {}

    def choose(self, logits: torch.Tensor, places: list[Place]) -> list[Sampled]:
        """`logits` [L, vocab] float32, rows as in `places`. One entry per place that draws or tells of the prompt."""
        # the largest is NaN when any is
        best, tokens = (part.tolist() for part in logits.max(-1))
        found: list[Sampled] = []
        to_sample: list[tuple[int, Sampled]] = []
        for place in places:
            if not place.draws and not _tells_of_prompt(place):
                continue
            sampled = Sampled(place.chunk.request, [])
            found.append(sampled)
            first, last = place.first, place.first + place.prompt + place.draws
            if any(value != value for value in best[first:last]):
                sampled.fault = "nan"
                continue
            if _tells_of_prompt(place):
                sampled.prompt_logprobs = _prompt(logits, place)
            first += place.prompt
            if sampled.request.sampling.plain_greedy and sampled.request.matcher is None:
                sampled.tokens = accepted(place.chunk.draft, tokens[first:last])
            elif place.draws == 1:
                to_sample.append((first, sampled))
            elif place.draws:
                row = self._row(sampled.request)
                probs = sampled.request.draft_probs
                take(sampled, _sampler().verify(logits[first:last], row, place.chunk.draft, probs))
        if to_sample:
            at = torch.tensor([row for row, _ in to_sample])
            drawn = _sampler().sample(logits[at], [self._row(sampled.request) for _, sampled in to_sample])
            for (_, sampled), one in zip(to_sample, drawn, strict=True):
                take(sampled, [one])
        return found

    def release(self, request: Request) -> None:
        self._rows.pop(request, None)

    def _row(self, request: Request) -> Any:
        if request not in self._rows:
            row = _sampler().Row(request.sampling, request.tokens, request.prompt_len, request.matcher)
            self._rows[request] = row
        return self._rows[request]


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


def take(sampled: Sampled, drawn: Sequence[Any]) -> None:
    """What the sampler drew, up to the first fault."""
    for one in drawn:
        if one.fault:
            sampled.fault = one.fault
            return
        sampled.tokens.append(one.token)
        if one.logprob is not None:
            sampled.logprobs.append(one.logprob)


def _sampler() -> Any:
    """Imported when first needed: an engine that only answers greedily starts without it."""
    return importlib.import_module("redline.runtime.sampler")
