"""A request as the engine sees it, how its tokens are chosen, and what comes back. Imports no torch."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from redline.engines.hf_server.job import TokenLogprob as TokenLogprob


class Matcher(Protocol):
    """A grammar's state for one request (`grammar.py`). Owned by the engine's thread."""

    def advance(self, token: int) -> None:
        """Takes a token that was allowed."""
        ...

    def finished(self) -> bool:
        """True when nothing but the end may follow."""
        ...

    def fill(self, words: memoryview) -> None:
        """Writes the allowed tokens as bits, 32 to a little-endian word, vocabulary rounded up."""
        ...

    def allowed(self, tokens: Sequence[int]) -> int:
        """How many of these tokens may follow, one after the other; changes nothing."""
        ...

    def rollback(self, tokens: int) -> None:
        """Takes back the last so many tokens."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How one answer is chosen. Values were checked by whoever made it.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0 and penalties 0 (1 for repetition) do nothing.
    `seed` is always set: whoever gives none gets a random one, so every draw can be repeated. `seeded`: it was asked
    for, so the text must be the one that it gives whatever a draft model guesses. `stop_ids` end the answer
    and include end-of-sequence unless that is ignored; `hold_ids` are kept away until `min_tokens`.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    seeded: bool = False
    stop_ids: frozenset[int] = frozenset()
    hold_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    """Alternatives to tell beside the chosen token; 0 tells the chosen one only; None tells nothing."""
    prompt_logprobs: int | None = None

    @property
    def plain_greedy(self) -> bool:
        """True when the answer is the arg max of the logits and nothing else is asked."""
        return (
            self.temperature == 0
            and self.repetition_penalty == 1
            and self.presence_penalty == 0
            and self.frequency_penalty == 0
            and not self.logit_bias
            and self.min_tokens == 0
            and self.logprobs is None
            and self.prompt_logprobs is None
        )


class Finish(enum.StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class Output(NamedTuple):
    """New tokens of one request, as its sink gets them; the last one has `finish`.

    `error` says what went wrong with finish ERROR. `prompt_logprobs` comes once, with the first tokens; its first entry
    is None, since nothing precedes the first token. `cached` counts prompt tokens that the prefix cache had.
    """

    tokens: tuple[int, ...]
    finish: Finish | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    cached: int = 0
    error: str = ""


Sink = Callable[[Output], None]
"""Called on the engine's thread, so it must be quick and must not raise."""


class Status(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False, slots=True)
class Books:
    """What the scheduler alone notes about a request."""

    order: tuple[int, int] = (0, 0)
    """Priority, then arrival: the smaller, the earlier."""
    limit: int = 0
    """Known tokens at which the answer ends for its length."""
    room: int = 0
    """Positions that its pages can take."""
    shared: int = 0
    """Its first so many pages were offered to the prefix cache."""
    names: list[bytes] = field(default_factory=list)
    """Chained hashes of its full pages, as far as they were needed."""
    in_flight: int = 0
    """Steps on their way that touch its pages."""
    host_bound: bool = False
    """Its next token cannot be chosen before the last one is known here, draft or not."""
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)


@dataclass(eq=False)
class Request:
    """Only the engine's thread touches it after `submit`.

    `tokens` are the prompt and the answer as far as known. `computed` counts tokens whose KV is written, or will be
    by a step in flight. `pending` counts sampled tokens of steps in flight: known to the device, not yet to us.
    """

    id: str
    tokens: list[int]
    sampling: Sampling
    sink: Sink
    priority: int = 0
    """Lower runs first, as in vLLM."""
    matcher: Matcher | None = None
    arrived_ns: int = 0
    prompt_len: int = field(init=False)
    status: Status = Status.WAITING
    computed: int = 0
    pending: int = 0
    pages: list[int] = field(default_factory=list)
    row: int = -1
    """Its place in the runner's tables while it runs."""
    cached: int = 0
    preempted: int = 0
    draft: list[int] = field(default_factory=list)
    """Guessed tokens that the next step may verify."""
    draft_probs: Any = None
    """What they were drawn from, a tensor [guesses or more, V]; None where each guess stands for itself."""
    scheduled_ns: int = 0
    first_token_ns: int = 0
    salt: bytes = b""
    """Requests share cached prefixes only under the same salt."""
    books: Books = field(default_factory=Books)

    def __post_init__(self) -> None:
        self.prompt_len = len(self.tokens)

    @property
    def generated(self) -> int:
        """Tokens of the answer that are known."""
        return len(self.tokens) - self.prompt_len

    @property
    def waits_for_host(self) -> bool:
        """True when the next token cannot be chosen before the last one is known here."""
        s = self.sampling
        counted = s.repetition_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0
        return self.matcher is not None or counted or bool(self.draft)
