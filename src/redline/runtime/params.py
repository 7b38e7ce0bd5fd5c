"""How an answer is to be chosen, as a user says it; checked, and turned into what the engine takes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from redline.engines.hf_server.ask import need
from redline.runtime.request import Sampling

MOST_CHOICES = 128
Kind = Literal["json_object", "json_schema", "regex", "choice", "grammar"]


@dataclass(frozen=True)
class Constraint:
    """What the answer must match. `value`: nothing, a schema (JSON), a pattern, the choices, a Lark grammar."""

    kind: Kind
    value: Any = None
    param: str = "structured_outputs"
    """The field of the request that asked for it, for errors."""


@dataclass(frozen=True)
class SamplingParams:
    """Names and meanings are those of the OpenAI API and of vLLM.

    `max_tokens` None fills the context. `temperature` 0 is greedy. `seed` None draws anew each time; choice k of `n`
    has the seed `seed + k`. `logprobs`: alternatives to tell beside each chosen token (0: the chosen one alone).
    """

    max_tokens: int | None = 16
    min_tokens: int = 0
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    constraint: Constraint | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def check(self, vocab_size: int) -> None:
        """ApiError (400) that names the field for the first value that cannot be."""
        one = self._number
        need(1 <= self.n <= MOST_CHOICES, f"n must be from 1 to {MOST_CHOICES}, not {self.n}", "n")
        one("temperature", 0, 100)
        one("top_p", 1e-9, 1)
        one("min_p", 0, 1)
        one("repetition_penalty", 1e-3, 100)
        one("presence_penalty", -2, 2)
        one("frequency_penalty", -2, 2)
        need(self.top_k >= -1, f"top_k must be -1 or more, not {self.top_k}", "top_k")
        need(self.max_tokens is None or self.max_tokens >= 1, "max_tokens must be at least 1", "max_tokens")
        need(self.min_tokens >= 0, "min_tokens must be at least 0", "min_tokens")
        need("" not in self.stops, "stop must not hold empty text", "stop")
        for token, bias in self.logit_bias.items():
            need(0 <= token < vocab_size, f"logit_bias: token {token} is outside the vocabulary", "logit_bias")
            need(-100 <= bias <= 100, f"logit_bias of {token} must be from -100 to 100, not {bias:g}", "logit_bias")
        outside = [token for token in self.stop_token_ids if not 0 <= token < vocab_size]
        need(not outside, f"stop_token_ids {outside} are outside the vocabulary", "stop_token_ids")

    def _number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        need(low <= value <= high, f"{name} must be from {low:g} to {high:g}, not {value:g}", name)

    def sampling(self, max_tokens: int, eos_ids: frozenset[int], choice: int) -> Sampling:
        """For one choice; `max_tokens` is what the prompt leaves room for."""
        need(self.min_tokens <= max_tokens, f"min_tokens={self.min_tokens} is more than {max_tokens}", "min_tokens")
        ends = frozenset(self.stop_token_ids) | (frozenset() if self.ignore_eos else eos_ids)
        seed = secrets.randbits(62) if self.seed is None else self.seed + choice
        return Sampling(
            max_tokens=max_tokens,
            min_tokens=self.min_tokens,
            temperature=float(self.temperature),
            top_k=max(0, self.top_k),
            top_p=float(self.top_p),
            min_p=float(self.min_p),
            repetition_penalty=float(self.repetition_penalty),
            presence_penalty=float(self.presence_penalty),
            frequency_penalty=float(self.frequency_penalty),
            logit_bias=tuple(sorted((int(token), float(bias)) for token, bias in self.logit_bias.items())),
            seed=seed % 2**63,
            seeded=self.seed is not None,
            stop_ids=ends,
            hold_ids=ends if self.min_tokens else frozenset(),
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
        )
