"""The model as the routes see it: tokenising, submitting, counting, and whether it is well."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .answer import Answer, Piece
from .ask import Ask, Sampling, fit, need
from .fault import ApiError, bad
from .job import Job, Worker
from .load import Loaded
from .text import Detokenizer


@dataclass
class Totals:
    """Counters for /metrics; only the event loop touches them."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0


class Service:
    """Ready once `loaded` and `worker` are set. Everything runs on the event loop."""

    def __init__(self, name: str, stall_timeout_s: float, max_waiting: int) -> None:
        self.name = name
        self.phase = "starting"
        self.loaded: Loaded | None = None
        self.worker: Worker | None = None
        self.totals = Totals()
        self.live: dict[str, Job] = {}
        self._max_waiting = max_waiting
        self._stall_timeout_s = stall_timeout_s
        self._numbers = itertools.count()
        self._last_steps = -1
        self._progress_at = time.monotonic()

    def trouble(self) -> str:
        """Why it cannot answer now; '' when it can."""
        if self.worker is None or self.phase != "ready":
            return f"not ready: {self.phase}"
        if failure := self.worker.failure():
            return failure
        steps, now = self.worker.steps(), time.monotonic()
        if not self.live or steps != self._last_steps:
            self._last_steps, self._progress_at = steps, now
        if now - self._progress_at > self._stall_timeout_s:
            return f"no token for {now - self._progress_at:.0f} s while {len(self.live)} requests run"
        return ""

    @property
    def ready(self) -> tuple[Loaded, Worker]:
        if trouble := self.trouble():
            raise ApiError(503, f"the model cannot answer: {trouble}")
        assert self.loaded is not None
        assert self.worker is not None
        return self.loaded, self.worker

    def check_model(self, name: str) -> None:
        if name and name != self.name:
            raise ApiError(404, f"model {name!r} is not served here; {self.name!r} is", param="model")

    def encode(self, prompt: str | tuple[int, ...], add_special_tokens: bool) -> list[int]:
        loaded, _ = self.ready
        if isinstance(prompt, str):
            return [int(one) for one in loaded.tokenizer.encode(prompt, add_special_tokens=add_special_tokens)]
        outside = [one for one in prompt if not 0 <= one < loaded.vocab_size]
        if outside:
            raise bad(f"token id {outside[0]} is outside the vocabulary of {loaded.vocab_size}", "prompt")
        return list(prompt)

    def render(self, messages: list[dict[str, Any]], template_args: dict[str, Any]) -> str:
        """The chat template's text. 400 when there is none or it rejects the messages."""
        tokenizer = self.ready[0].tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise bad("this model has no chat template; use /v1/completions", "messages")
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, **template_args))
        except Exception as error:
            raise bad(f"the chat template rejects these messages: {error}", "messages") from error

    def prompts(self, ask: Ask) -> list[list[int]]:
        texts = ask.prompts if ask.messages is None else (self.render(ask.messages, ask.template_args),)
        return [self.encode(text, ask.add_special_tokens) for text in texts]

    def sampling(self, ask: Ask, prompt: list[int]) -> Sampling:
        """The request's settings with the number of tokens that this prompt leaves room for. 400 when none fit."""
        loaded, worker = self.ready
        wanted = fit(len(prompt), ask.max_tokens, loaded.max_model_len)
        sampling = replace(ask.sampling, max_tokens=wanted)
        need(sampling.min_tokens <= wanted, f"min_tokens={sampling.min_tokens} is more than {wanted}", "min_tokens")
        outside = [one for one in sampling.stop_token_ids if not 0 <= one < loaded.vocab_size]
        need(not outside, f"stop_token_ids {outside} are outside the vocabulary", "stop_token_ids")
        if not getattr(worker, "samples", True):
            self._greedy_only(sampling)
        return sampling

    @staticmethod
    def _greedy_only(sampling: Sampling) -> None:
        cause = "is not supported with CUDA graphs or compilation in continuous batching: start it without them"
        need(sampling.temperature == 0, f"temperature={sampling.temperature:g} {cause}; 0 is", "temperature")
        need(sampling.top_logprobs is None, f"logprobs {cause}", "logprobs")
        need(sampling.min_tokens == 0 or sampling.ignore_eos, f"min_tokens {cause}", "min_tokens")

    def admit(self, count: int) -> None:
        waiting = self.ready[1].load().waiting
        if self._max_waiting and waiting + count > self._max_waiting:
            raise ApiError(503, f"{waiting} requests wait already; --max-waiting is {self._max_waiting}")

    def submit(
        self,
        index: int,
        prompt: list[int],
        sampling: Sampling,
        *,
        incremental: bool,
        per_token: bool,
        emit: Callable[[Piece | Exception], None],
    ) -> Job:
        """Starts one answer. `emit` gets its pieces, the last with a finish reason, or one failure."""
        loaded, worker = self.ready
        answer = Answer(index, Detokenizer(loaded.decode, prompt), sampling.stop, per_token, emit)
        stop_ids = sampling.stop_token_ids | (frozenset() if sampling.ignore_eos else loaded.eos_ids)

        def receive(tokens: list[int], finish: str, error: Exception | None) -> None:
            if job.id not in self.live:
                return
            self.totals.generation_tokens += len(tokens)
            answer.take(tokens, finish, job.logprobs if sampling.top_logprobs is not None else None)
            if answer.finish:
                self.totals.finished += 1
                self.close(job, cancel=not finish)
            elif error is not None:
                self.totals.failed += 1
                self.close(job, cancel=False)
                emit(error)

        job = Job(
            id=f"job-{next(self._numbers)}",
            prompt=prompt,
            sampling=sampling,
            stop_ids=stop_ids,
            eos_ids=frozenset() if sampling.ignore_eos else loaded.eos_ids,
            incremental=incremental or bool(sampling.stop),
            receive=receive,
        )
        self._open(job)
        worker.submit(job)
        return job

    def _open(self, job: Job) -> None:
        if not self.live:
            self._progress_at = time.monotonic()  # an idle server is not a stuck one
        self.live[job.id] = job
        self.totals.prompt_tokens += len(job.prompt)

    def close(self, job: Job, *, cancel: bool) -> None:
        self.live.pop(job.id, None)
        if cancel and self.worker is not None:
            self.worker.cancel(job)

    def abandon(self, job: Job) -> None:
        """The client went away."""
        if job.id in self.live:
            self.totals.cancelled += 1
            self.close(job, cancel=True)
