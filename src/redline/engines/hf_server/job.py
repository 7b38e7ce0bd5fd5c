"""What the event loop and the generating thread say to each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from .ask import Sampling


class TokenLogprob(NamedTuple):
    """Log-probabilities before temperature, top-k and top-p, as vLLM's default has them."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(eq=False)
class Job:
    """One prompt and the tokens that answer it. Made on the event loop; `receive` is called there, too."""

    id: str
    prompt: list[int]
    sampling: Sampling
    stop_ids: frozenset[int]
    """Tokens that end the answer: end-of-sequence unless ignored, and the request's own."""
    eos_ids: frozenset[int]
    """End-of-sequence tokens, which `min_tokens` keeps away."""
    incremental: bool
    """Tokens are wanted as they come, not only at the end."""
    receive: Callable[[list[int], str, Exception | None], None]
    """(new tokens, finish reason or '', failure)"""
    cancelled: bool = False
    seen: int = 0
    logprobs: deque[TokenLogprob] = field(default_factory=deque)
    """Filled by the generating thread before the tokens they belong to are handed over."""

    @property
    def limit(self) -> int:
        return self.sampling.max_tokens

    def ends(self, token: int, count: int) -> str:
        """Why the answer ends with this token, its `count`-th; '' when it goes on."""
        if token in self.stop_ids:
            return "stop"
        return "length" if count >= self.limit else ""


class Load(NamedTuple):
    running: int
    waiting: int
    kv_usage: float | None


class Worker(Protocol):
    """Owns the model and a thread. All methods are called on the event loop."""

    def start(self, post: Callable[[Callable[[], None]], None]) -> None:
        """`post` runs a function on the event loop, from any thread."""
        ...

    def submit(self, job: Job) -> None: ...

    def cancel(self, job: Job) -> None:
        """The job's tokens are wanted no more; its place is free after the step that is running now."""
        ...

    def load(self) -> Load: ...

    def failure(self) -> str:
        """Why it will never answer again; '' while it works."""
        ...

    def steps(self) -> int:
        """Grows while it makes progress."""
        ...

    def capacity(self) -> int:
        """Tokens, prompt and answer, of the longest request that its memory can hold; 0 when nothing limits it."""
        ...

    def resolved(self) -> dict[str, Any]:
        """What was chosen where a flag left the choice."""
        ...

    def stop(self) -> None: ...
