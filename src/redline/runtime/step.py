"""What the scheduler and a runner say to each other. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from redline.runtime.request import Request, TokenLogprob


class Chunk(NamedTuple):
    """`length` tokens of one request, from position `start`.

    Positions from `len(request.tokens)` on are not known to the host: first come `request.pending` tokens that only the
    device knows, then the tokens of `draft`, which `length` counts too. `samples` says that the logits after the last
    token (and after every token before a draft token) choose tokens; a chunk in the middle of a prompt chooses none.
    """

    request: Request
    start: int
    length: int
    samples: bool
    draft: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """One forward pass. `chunks` lists decodes first. Pages for all of it are in each request's `pages`."""

    number: int
    chunks: Sequence[Chunk]
    tokens: int


@dataclass
class Sampled:
    """What one sampling chunk gave: accepted draft tokens and one more.

    `fault` names what was wrong: `nan`, `grammar` (it allowed nothing, having hit a limit) or ''.
    """

    request: Request
    tokens: list[int]
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    """Of this chunk's prompt tokens, where asked for; from any chunk, also one that samples nothing."""
    fault: str = ""


class Limits(NamedTuple):
    """What a runner can hold; decided when it started."""

    pages: int
    page_size: int
    max_seqs: int
    max_batched_tokens: int
    max_model_len: int
    vocab_size: int


class Launched(Protocol):
    """A step on its way."""

    step: Step


class Runner(Protocol):
    """Owns the model and its memory. Called by the engine's thread only."""

    @property
    def limits(self) -> Limits: ...

    def launch(self, step: Step) -> Launched:
        """Enqueues the step. Raises `RunnerOutOfMemory` when it cannot hold it; then nothing has happened."""
        ...

    def collect(self, launched: Launched) -> list[Sampled]:
        """Waits for it. One entry per chunk that samples or that asked for prompt log-probabilities, in order."""
        ...

    def release(self, request: Request) -> None:
        """The request left (finished, aborted, preempted): its row's state is of no use any more."""
        ...

    def resolved(self) -> dict[str, str]:
        """What was chosen where the configuration left the choice: kernels per bucket, dtype, pages, threads."""
        ...

    def close(self) -> None: ...


class Proposer(Protocol):
    """Guesses tokens. `propose` sets `draft` of the requests given, all of which have nothing pending.

    It sets `draft_probs`, too, where it drew the guesses. A proposer may have `stepped(step, seconds)`, which the loop
    calls after each collected step.
    """

    def propose(self, requests: Sequence[Request], most: int) -> None: ...

    def release(self, request: Request) -> None: ...


class RunnerOutOfMemory(Exception):
    """The step did not fit; the scheduler may try a smaller one."""


class RunnerBroken(Exception):
    """The device is gone (a CUDA error): nothing after this can be trusted."""
