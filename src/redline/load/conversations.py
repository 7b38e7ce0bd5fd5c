"""Sessions: conversations of several turns, each turn's prompt the conversation so far with the server's real answers.

The user's turns are synthetic, or recorded (JSON lines with messages, ShareGPT); the answers are always live.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from redline.errors import SpecError
from redline.load.datasets import read_rounds
from redline.load.prompt import Prompt
from redline.load.prompts import PromptSource, draw
from redline.spec.workload import LengthSpec, WorkloadSpec
from redline.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class Turn:
    """`said` are the messages that come before the answer: what the user says, in the first turn a system prompt too.
    `prompt_tokens` is the length of the whole prompt where it is known in advance, else 0. `think_ns` is how long the
    user took to say it, from the end of the answer before."""

    said: tuple[dict[str, Any], ...]
    output_tokens: int
    prompt_tokens: int = 0
    said_tokens: int = 0
    think_ns: int = 0
    exact: bool = True


def opening_turn(opening: Prompt) -> Turn:
    """The first turn: a prompt that stands by itself."""
    return Turn(opening.messages, opening.output_tokens, opening.tokens, opening.tokens, exact=opening.exact)


@dataclass
class Conversation:
    """One session under way."""

    number: int
    turns: Sequence[Turn]
    messages: list[dict[str, Any]] = field(default_factory=list)
    at: int = 0

    @property
    def turn(self) -> Turn:
        return self.turns[self.at]

    def prompt(self) -> Prompt:
        """The prompt of the turn that is next."""
        messages = (*self.messages, *self.turn.said)
        turn = self.turn
        return Prompt(messages=messages, tokens=turn.prompt_tokens, output_tokens=turn.output_tokens, exact=turn.exact)

    def answered(self, text: str) -> bool:
        """Goes on to the next turn; False when that was the last."""
        self.messages += [*self.turn.said, {"role": "assistant", "content": text}]
        self.at += 1
        return self.at < len(self.turns)


class Script(Protocol):
    """Where conversations come from."""

    def conversations(self, first: int, count: int, *, under_load: bool) -> list[Conversation]:
        """Sessions `first` to `first + count` of this load point; fewer when there are no more."""
        ...


class Written:
    """Sessions of a workload with `turns`; seed and number decide each."""

    def __init__(self, workload: WorkloadSpec, prompts: PromptSource, seed: int, offset: int) -> None:
        self._workload, self._prompts, self._seed = workload, prompts, seed
        self._offset = offset  # prompts before this one went into the warm-up
        recorded = workload.kind in ("jsonl", "sharegpt")
        self._recorded = read_rounds(workload.kind, Path(workload.path)) if recorded else []
        if recorded and not self._recorded:
            raise SpecError("holds no conversation", file=workload.path, field="workload.path")

    def conversations(self, first: int, count: int, *, under_load: bool) -> list[Conversation]:
        if self._recorded:
            return [self._replayed(number) for number in range(first, first + count)]
        verify = self._prompts.verifies(under_load=under_load)
        openings = self._prompts.prompts(self._seed, self._offset + first, count, verify=verify)
        return [self._synthetic(first + i, opening) for i, opening in enumerate(openings)]

    def _turn_count(self, rng: random.Random) -> int:
        turns = self._workload.turns
        return draw(LengthSpec(mean=turns.mean, stddev=turns.stddev, min=turns.min, max=turns.max), rng)

    def _think_ns(self, rng: random.Random) -> int:
        mean = self._workload.think_time_s
        seconds = rng.expovariate(1 / mean) if mean and self._workload.think_time == "exponential" else mean
        return int(seconds * NS_PER_S)

    def _synthetic(self, number: int, opening: Prompt) -> Conversation:
        rng = random.Random(f"{self._seed}/{number}/turns")
        turns = [opening_turn(opening)]
        for at in range(1, self._turn_count(rng)):
            tokens = draw(self._workload.turn_tokens, rng)
            text = self._prompts.composer.text(f"{self._seed}/{number}/{at}", tokens)
            said = ({"role": "user", "content": text},)
            output = draw(self._workload.output_tokens, rng)
            turns.append(Turn(said, output, said_tokens=tokens, think_ns=self._think_ns(rng)))
        return Conversation(number, turns)

    def _replayed(self, number: int) -> Conversation:
        rng = random.Random(f"{self._seed}/{number}/turns")
        rounds = self._recorded[number % len(self._recorded)]
        turns = []
        for at, (said, words) in enumerate(rounds[: self._turn_count(rng)]):
            messages = self._salted(said, number) if at == 0 else said
            output = round(words * 4 / 3) or draw(self._workload.output_tokens, rng)
            turns.append(Turn(messages, output, said_tokens=_guess(said), think_ns=self._think_ns(rng) if at else 0))
        return Conversation(number, turns)

    def _salted(self, said: tuple[dict[str, Any], ...], number: int) -> tuple[dict[str, Any], ...]:
        first, *rest = said
        if not self._workload.salted or not isinstance(first["content"], str):
            return said
        salt = " ".join(self._prompts.composer.salt(self._seed, self._offset + number))
        return ({**first, "content": f"{salt} {first['content']}"}, *rest)


def _guess(said: Sequence[dict[str, Any]]) -> int:
    """Tokens of messages, when nobody counted them: 4/3 of the words."""
    return sum(round(len(str(message["content"]).split()) * 4 / 3) for message in said)
