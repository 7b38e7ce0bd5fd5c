"""Fixed prompts in the middle of the load, and whether their answers are those that the same server gave alone.

Greedy answers may differ under load in good health: sums in a batch are added in another order, and a near-tie falls
the other way; from there on the texts part. A damaged server differs in other ways: from the first token on, with
another prompt's answer, or with no text at all. What is counted here lets a rule tell these apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from importlib.resources import files
from itertools import takewhile
from statistics import median
from typing import Any

import orjson

from redline.load.answer import Answer
from redline.load.features import Census, census, features
from redline.load.prompt import Prompt
from redline.load.record import RequestRecord, Status
from redline.spec.workload import WorkloadSpec

TOKENS_MAX = 32
EARLY_SHARE = 0.1
ROUNDS = 2
ORDINARY_ALONE = 4
_HEAD_START = 3.0
_HEAD_START_OVER = 20
_SAMPLE = 400
_SHOWN = 3
_SHOWN_CHARACTERS = 80
_OUGHT_TO_ANSWER_S = 8.0


@dataclass(frozen=True)
class Said:
    """One answer to a canary. `logprobs` of its tokens where the server gives them."""

    text: str
    logprobs: tuple[float, ...] = ()


@dataclass
class Canaries:
    """The canaries of one server, with what they answered alone: had once, good for every load point."""

    prompts: list[Prompt]
    share: float
    workload: WorkloadSpec
    """Greedy, and else that of the class that canaries go with."""
    part: str = ""
    alone: dict[int, list[Said]] = field(default_factory=dict)
    looks: Census = field(default_factory=Census)
    """Of everything that was answered alone."""

    def due(self, number: int) -> int:
        """Which canary is the `number`-th measured request; -1 for an ordinary one.

        The share asked for, and up to three more in the first sixty, so that a short point has some too.
        """
        before, after = (math.floor(self._due(n) + 1e-9) for n in (number, number + 1))
        return before % len(self.prompts) if after > before else -1

    def _due(self, requests: int) -> float:
        return self.share * requests + min(_HEAD_START, requests / _HEAD_START_OVER)

    def beside(self, requests: int) -> int:
        """Canaries that come with so many ordinary requests."""
        total = requests
        while total - math.floor(self._due(total) + 1e-9) < requests:
            total += 1
        return total - requests


def canaries_for(workload: WorkloadSpec) -> Canaries | None:
    """None where the workload wants none, or none of its classes has greedy text to compare."""
    texts = {name: one for name, one in workload.parts.items() if one.api in ("chat", "completions")}
    if not workload.canary_share or not texts:
        return None
    part, found = next(iter(texts.items()))
    greedy = found.model_copy(update={"temperature": 0.0, "ignore_eos": True})
    told = orjson.loads((files("redline") / "recipes" / "canaries.json").read_bytes())
    tokens = min(TOKENS_MAX, greedy.output_tokens.mean)
    prompts = [
        Prompt(messages=({"role": "user", "content": text},), output_tokens=tokens)
        if greedy.api == "chat"
        else Prompt(text=text, output_tokens=tokens)
        for text in told["prompts"]
    ]
    return Canaries(prompts, workload.canary_share, greedy, part)


def ordinary_alone(workload: WorkloadSpec, token_s: float) -> int:
    """How many ordinary prompts to ask alone: a few, one where that takes long already."""
    return max(1, min(ORDINARY_ALONE, int(_OUGHT_TO_ANSWER_S / max(token_s * workload.output_tokens.mean, 1e-9))))


def affordable(canaries: Canaries, token_s: float) -> list[int]:
    """The canaries to ask alone, in order: two rounds of all where that is a matter of seconds, else fewer."""
    numbers = list(range(len(canaries.prompts)))
    each_s = token_s * (canaries.prompts[0].output_tokens + 1)
    most = max(2, int(_OUGHT_TO_ANSWER_S / max(each_s, 1e-9)))
    return (numbers * ROUNDS)[: most if most < len(numbers) else most // len(numbers) * len(numbers)]


class Sample:
    """Some hundred texts, evenly over all answers however many come. Looked at afterwards: it takes too long during."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._every, self._seen = 1, 0

    def offer(self, answer: Answer) -> None:
        self._seen += 1
        if self._seen % self._every:
            return
        self.texts.append(_text(answer))
        if len(self.texts) >= _SAMPLE:
            del self.texts[::2]
            self._every *= 2


class Listener:
    """Hears every answer of one load point: canaries as a whole, of the others only the features."""

    def __init__(self, canaries: Canaries | None) -> None:
        self._canaries = canaries
        self._loaded: list[tuple[int, Said]] = []
        self._broken = 0
        self._measured, self._warm = Sample(), Sample()
        self.alone = False
        """Only one request is in flight at a time now."""

    def hear(self, record: RequestRecord, answer: Answer) -> None:
        if record.canary >= 0 and self._canaries is not None:
            self._hear_canary(self._canaries, record, Said(_text(answer), tuple(answer.logprobs)))
        elif record.status is Status.OK and self.alone and self._canaries is not None:
            self._canaries.looks.add(features(_text(answer)))
        elif record.status is Status.OK:
            (self._warm if record.warmup else self._measured).offer(answer)

    def _hear_canary(self, canaries: Canaries, record: RequestRecord, said: Said) -> None:
        if record.status is not Status.OK:
            self._broken += record.failed and not record.warmup
        elif record.warmup:
            canaries.alone.setdefault(record.canary, []).append(said)
            canaries.looks.add(features(said.text))
        else:
            self._loaded.append((record.canary, said))

    def canary(self) -> dict[str, Any]:
        """For the outcome of the point; empty without canaries."""
        if self._canaries is None:
            return {}
        return compared(self._canaries.alone, self._loaded) | {"broken": self._broken}

    def answers(self) -> dict[str, Any]:
        """The features of ordinary answers: measured, in the warm-up, and had alone."""
        told = {"measured": census(self._measured.texts).as_dict(), "warmup": census(self._warm.texts).as_dict()}
        return told | ({"alone": self._canaries.looks.as_dict()} if self._canaries is not None else {})


def compared(alone: dict[int, list[Said]], loaded: list[tuple[int, Said]]) -> dict[str, Any]:
    """Answers under load against answers alone, counted."""
    pairs = [(number, alone[number][0], said) for number, said in loaded if number in alone]
    off = [(number, want, got) for number, want, got in pairs if want.text != got.text]
    others = {said[0].text: number for number, said in alone.items()}
    agreed = [_agreed(want.text, got.text) for _, want, got in off]
    drifts = [drift for _, want, got in pairs if (drift := _drift(want, got)) is not None]
    return {
        "asked": len(loaded),
        "compared": len(pairs),
        "mismatched": len(off),
        "early": sum(share < EARLY_SHARE for share in agreed),
        "mixed_up": sum(others.get(got.text, number) != number for number, _, got in off if got.text),
        "spoilt": sum(_spoilt(want.text, got.text) for _, want, got in off),
        "agreed_share": median(agreed) if agreed else 1.0,
        "similarity": _mean([SequenceMatcher(None, want.text, got.text).ratio() for _, want, got in off], 1.0),
        "logprob_drift": _mean(drifts, None),
        "alone": len(alone),
        "asked_twice": sum(len(said) > 1 for said in alone.values()),
        "unlike_alone": sum(len({one.text for one in said}) > 1 for said in alone.values()),
        "examples": [[number, _short(want.text), _short(got.text)] for number, want, got in off[:_SHOWN]],
    }


def _text(answer: Answer) -> str:
    return "".join(chunk.text for chunk in answer.chunks)


def _agreed(want: str, got: str) -> float:
    """The share of the answer before the texts part."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(want, got, strict=False)))
    return same / max(len(want), 1)


def _spoilt(want: str, got: str) -> bool:
    was, now = features(want), features(got)
    return not got.strip() or (now.garbled and not was.garbled) or (now.looping and not was.looping)


def _drift(want: Said, got: Said) -> float | None:
    """Mean distance in nats as long as the texts agree; None without log-probabilities."""
    if not want.logprobs or not got.logprobs:
        return None
    count = min(len(want.logprobs), len(got.logprobs))
    count = max(1, int(count * _agreed(want.text, got.text)))
    return sum(abs(a - b) for a, b in zip(want.logprobs[:count], got.logprobs[:count], strict=True)) / count


def _mean(values: list[float], default: float | None) -> float | None:
    return sum(values) / len(values) if values else default


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
