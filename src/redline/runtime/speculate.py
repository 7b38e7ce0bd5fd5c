"""Speculation as the loop sees it: who guesses, and whether guessing pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redline.errors import UsageError
from redline.runtime.config import SpeculationConfig
from redline.runtime.controller import Controller as Controller
from redline.runtime.ngram import NgramProposer as NgramProposer
from redline.runtime.request import Request
from redline.runtime.step import Limits, Proposer, Step

if TYPE_CHECKING:
    import torch


class AdaptiveProposer:
    """Guesses as many tokens as the controller says, and tells it what came of them.

    The loop calls `stepped` after each step. Which guesses stood is read from the requests' own tokens.
    """

    def __init__(
        self, proposer: Proposer, controller: Controller, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.proposer, self.controller = proposer, controller
        self._clock = clock
        self._given: dict[str, tuple[Request, int, list[int]]] = {}

    def propose(self, requests: Sequence[Request], most: int) -> None:
        for request in requests:
            self._settle(request.id)
        rows = len(requests)
        width = min(most, self.controller.choose(rows))
        if not width:
            for request in requests:
                request.draft = []
            return
        started = self._clock()
        self.proposer.propose(requests, width)
        seconds = self._clock() - started
        drafted = [request for request in requests if request.draft]
        self.controller.guessed(rows, width, len(drafted), seconds)
        for request in drafted:
            self._given[request.id] = (request, len(request.tokens), list(request.draft))

    def stepped(self, step: Step, seconds: float) -> None:
        """Steps that also prefill say nothing about speculation and are left out."""
        if all(chunk.samples and chunk.length == 1 + len(chunk.draft) for chunk in step.chunks):
            self.controller.stepped(len(step.chunks), step.tokens, seconds)

    def release(self, request: Request) -> None:
        self._settle(request.id)
        self.proposer.release(request)

    def _settle(self, name: str) -> None:
        given = self._given.pop(name, None)
        if given is None:
            return
        request, size, draft = given
        came = request.tokens[size:]
        # Nothing came: the step was not run, or failed.
        if came:
            pairs = list(zip(draft, came, strict=False))
            fell = next((i for i, (guess, token) in enumerate(pairs) if guess != token), None)
            # An answer that ended says nothing about the guesses after its end.
            self.controller.stood(*((len(pairs), len(pairs)) if fell is None else (len(draft), fell)))


def proposer_for(
    config: SpeculationConfig, limits: Limits, load: Callable[[Path], Any], device: torch.device | str = "cpu"
) -> Proposer:
    """`load` gives the draft model (`runtime.model.Model`) on `device`.

    Raises `UsageError` when it cannot guess for the target.
    """
    proposer: Proposer
    if config.method == "ngram":
        proposer = NgramProposer(config.ngram_min, config.ngram_max)
    else:
        if config.draft_model is None:
            raise UsageError("a draft model is to guess, and none is named", fix="--draft-model FOLDER")
        # Here, so that n-grams need no torch.
        from redline.runtime.draft import DraftProposer

        model = load(config.draft_model)
        if model.config.vocab_size != limits.vocab_size:
            raise UsageError(
                f"{config.draft_model}: a vocabulary of {model.config.vocab_size}, the model has {limits.vocab_size}",
                why="a guess is a token id, so both must mean the same by it",
            )
        proposer = DraftProposer(model, pages=limits.pages, page_size=limits.page_size, device=device)
    return AdaptiveProposer(proposer, Controller(config.tokens)) if config.adaptive else proposer
