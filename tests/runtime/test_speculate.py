from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redline.errors import UsageError
from redline.runtime.config import SpeculationConfig
from redline.runtime.controller import Controller
from redline.runtime.draft import DraftProposer
from redline.runtime.ngram import NgramProposer
from redline.runtime.request import Request, Sampling
from redline.runtime.speculate import AdaptiveProposer, proposer_for
from redline.runtime.step import Chunk, Limits, Step
from tests.runtime.test_draft import PagedModel

LIMITS = Limits(pages=8, page_size=4, max_seqs=4, max_batched_tokens=64, max_model_len=32, vocab_size=12)


class Fives:
    """Guesses nothing but fives, and takes a second per guess."""

    def __init__(self) -> None:
        self.now = 0.0
        self.released: list[str] = []

    def propose(self, requests: Sequence[Request], most: int) -> None:
        self.now += most
        for request in requests:
            request.draft = [5] * most

    def release(self, request: Request) -> None:
        self.released.append(request.id)


class Told(Controller):
    def __init__(self, width: int) -> None:
        super().__init__(4)
        self.width = width
        self.heard: list[Any] = []

    def choose(self, rows: int) -> int:
        return self.width

    def guessed(self, rows: int, width: int, guessed: int, seconds: float) -> None:
        self.heard.append(("guessed", rows, width, guessed, seconds))

    def stepped(self, rows: int, tokens: int, seconds: float) -> None:
        self.heard.append(("stepped", rows, tokens, seconds))

    def stood(self, proposed: int, accepted: int) -> None:
        self.heard.append(("stood", proposed, accepted))


def request(name: str) -> Request:
    return Request(name, [1, 2, 3], Sampling(max_tokens=50), lambda _: None)


def adaptive(width: int) -> tuple[AdaptiveProposer, Told, Fives]:
    inner, controller = Fives(), Told(width)
    return AdaptiveProposer(inner, controller, clock=lambda: inner.now), controller, inner


def test_it_guesses_as_wide_as_it_is_told_and_tells_what_stood() -> None:
    proposer, controller, inner = adaptive(3)
    one, other, idle = request("a"), request("b"), request("c")
    proposer.propose([one, other, idle], 4)
    assert one.draft == [5, 5, 5]
    assert controller.heard == [("guessed", 3, 3, 3, 3.0)]
    controller.heard.clear()
    one.tokens += [5, 5, 7]
    other.tokens += [5]  # the answer ended here
    proposer.release(other)
    proposer.propose([one, idle], 1)
    assert controller.heard == [("stood", 1, 1), ("stood", 3, 2), ("guessed", 2, 1, 2, 1.0)]
    assert one.draft == [5]
    assert inner.released == ["b"]


def test_no_width_means_no_guess_and_no_work() -> None:
    proposer, controller, inner = adaptive(0)
    one = request("a")
    one.draft = [9]
    proposer.propose([one], 4)
    assert one.draft == []
    assert inner.now == 0
    assert controller.heard == []


def test_only_steps_without_prefill_are_measured() -> None:
    proposer, controller, _ = adaptive(2)
    decode, verified = Chunk(request("a"), 3, 1, True), Chunk(request("b"), 3, 3, True, (5, 5))
    prefill = Chunk(request("c"), 0, 3, True)
    proposer.stepped(Step(0, [decode, verified], 4), 0.5)
    proposer.stepped(Step(1, [decode, prefill], 4), 0.5)
    proposer.stepped(Step(2, [decode, Chunk(request("d"), 0, 1, False)], 2), 0.5)
    assert controller.heard == [("stepped", 2, 4, 0.5)]


def nothing(_: Path) -> Any:
    raise AssertionError("no model is needed")


def test_who_guesses_is_as_configured() -> None:
    plain = SpeculationConfig("ngram", adaptive=False)
    assert isinstance(proposer_for(plain, LIMITS, nothing), NgramProposer)
    found = proposer_for(replace(plain, adaptive=True, tokens=7), LIMITS, nothing)
    assert isinstance(found, AdaptiveProposer)
    assert isinstance(found.proposer, NgramProposer)
    assert found.controller.most == 7

    def load(_: Path) -> Any:
        model = PagedModel()
        model.config = SimpleNamespace(vocab_size=12)  # type: ignore[attr-defined]
        return model

    draft = SpeculationConfig("draft", draft_model=Path("small"), adaptive=False)
    assert isinstance(proposer_for(draft, LIMITS, load), DraftProposer)
    with pytest.raises(UsageError, match="a vocabulary of 12, the model has 13"):
        proposer_for(draft, LIMITS._replace(vocab_size=13), load)
    with pytest.raises(UsageError, match="none is named"):
        proposer_for(SpeculationConfig("draft"), LIMITS, load)
