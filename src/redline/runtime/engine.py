"""A model that answers: the loop with its tokenizer, its limits and its defaults. What `LLM` and the server share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redline.clock import now_ns
from redline.engines.hf_server.ask import fit
from redline.engines.hf_server.fault import ApiError, bad
from redline.errors import EngineError, UsageError
from redline.runtime.answering import Answering, last_line
from redline.runtime.params import Constraint, SamplingParams
from redline.runtime.request import Matcher, Request, Sampling, Sink
from redline.runtime.tokenizer import Tokenizer, read_json

if TYPE_CHECKING:
    from redline.runtime.loop import EngineLoop
    from redline.runtime.remote import RemoteLoop
    from redline.runtime.step import Limits

DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass
class Engine:
    """`defaults` are the checkpoint's own sampling settings, for requests that say nothing."""

    loop: EngineLoop | RemoteLoop
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    defaults: dict[str, float]
    compile: Callable[[Constraint], Callable[[], Matcher]] | None = None
    """From a `Constraint` to a maker of fresh matchers; None where no grammar library is installed."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def limits(self) -> Limits:
        return self.loop.runner.limits

    @property
    def max_model_len(self) -> int:
        return self.limits.max_model_len

    def encode(self, prompt: str | Sequence[int], special: bool = True) -> list[int]:
        """400 for ids outside the vocabulary, and for half characters, which JSON can carry and no text has."""
        if isinstance(prompt, str):
            try:
                return self.tokenizer.encode(prompt, special)
            except (UnicodeError, TypeError) as error:
                raise bad(f"the text cannot be encoded: {error}", "prompt") from error
        outside = next((one for one in prompt if not 0 <= one < self.limits.vocab_size), None)
        if outside is not None:
            raise bad(f"token id {outside} is outside the vocabulary of {self.limits.vocab_size}", "prompt")
        return list(prompt)

    def sampling(self, params: SamplingParams, prompt_tokens: int, choice: int) -> Sampling:
        """400 when prompt and answer do not fit."""
        return params.sampling(fit(prompt_tokens, params.max_tokens, self.max_model_len), self.eos_ids, choice)

    def matchers(self, params: SamplingParams) -> Callable[[], Matcher] | None:
        """Slow for a large schema: not for the event loop. 400 for one that cannot be."""
        if params.constraint is None:
            return None
        if self.compile is None:
            raise bad("structured outputs need llguidance: pip install llguidance", params.constraint.param)
        return self.compile(params.constraint)

    def submit(
        self,
        prompt: list[int],
        sampling: Sampling,
        answering: Answering,
        sink: Sink,
        *,
        matcher: Matcher | None = None,
        priority: int = 0,
    ) -> None:
        """`sink` carries outputs to the reader's thread. ApiError: 400 for what can never run here, 503 from an engine
        that takes nothing."""
        request = Request(
            id=f"r{next(self._numbers)}",
            tokens=list(prompt),
            sampling=sampling,
            sink=sink,
            priority=priority,
            matcher=matcher,
            arrived_ns=now_ns(),
        )
        answering.request = request
        try:
            self.loop.submit(request)
        except UsageError as error:
            raise bad(str(error)) from error
        except EngineError as error:
            raise ApiError(503, last_line(str(error)), retry_after_s=1) from error


def eos_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """End-of-sequence tokens: of the generation's settings (else of the model's), and of the tokenizer."""
    generation, model = read_json(folder / "generation_config.json"), read_json(folder / "config.json")
    found = generation.get("eos_token_id", model.get("eos_token_id"))
    listed = found if isinstance(found, list) else [found]
    return frozenset(int(one) for one in [*listed, tokenizer.id_of("eos_token")] if one is not None and one >= 0)


def sampling_defaults(folder: Path) -> dict[str, float]:
    """Of generation_config.json where it says that it samples: without `do_sample` its numbers mean nothing."""
    found = read_json(folder / "generation_config.json")
    if not found.get("do_sample"):
        return {}
    return {name: float(found[name]) for name in DEFAULTS if found.get(name) is not None}
