"""What is asked: prompts, their lengths, and how the answer is wanted."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault
from redline.spec.turns import TurnsSpec

SLOW_READER = "slow reader"
"""Class of the requests whose client reads slowly on purpose: no latency is taken of them."""


class LengthSpec(Spec):
    """A number of tokens: a constant when `stddev` is 0, else a normal draw clipped to [min, max]."""

    mean: Whole = Field(ge=1, description="tokens")
    stddev: Number = Field(0.0, ge=0, description="tokens")
    min: Whole = Field(1, ge=1, description="tokens")
    max: Whole = Field(1_000_000, ge=1, description="tokens")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise fault(f"min {self.min} is above max {self.max}", field="min")
        if not self.min <= self.mean <= self.max:
            raise fault(f"mean {self.mean} lies outside [{self.min}, {self.max}]", field="mean")
        return self


class WorkloadSpec(Spec):
    """`kind` synthetic makes prompts of exact length; text, jsonl and sharegpt read `path`.

    jsonl: one object a line with `prompt` (text) or `messages` (chat), and optionally `output_tokens`.
    sharegpt: the ShareGPT JSON list; the first human turn is the prompt, the answer's length the output length.
    trace: recorded lengths, with their times where load has trace_speed. With several `turns`, requests are sessions.
    """

    kind: Literal["synthetic", "text", "jsonl", "sharegpt", "trace"] = Field(
        "synthetic", description="where prompts come from"
    )
    path: str = Field("", description="file for text, jsonl, sharegpt and trace")
    api: Literal["chat", "completions"] = Field("completions", description="endpoint to call")
    prompt_tokens: LengthSpec = Field(LengthSpec(mean=128), description="prompt length, chat template included")
    output_tokens: LengthSpec = Field(LengthSpec(mean=64), description="answer length asked for")
    shared_prefix_tokens: Whole = Field(0, ge=0, description="tokens that all prompts begin with")
    ignore_eos: bool = Field(True, description="make every answer exactly as long as asked, where the engine can")
    stream: bool = Field(True, description="stream the answer; without it there is no TTFT")
    temperature: Number = Field(0.0, ge=0, description="0 is greedy")
    salt: bool = Field(
        True, description="make every prompt start differently, so that no prefix cache answers by accident"
    )
    keep_text: bool = Field(False, description="store what was generated")
    trace_format: Literal["auto", "mooncake", "burstgpt", "azure", "otel", "redline"] = Field(
        "auto", description="trace: how path is written; auto finds out"
    )
    turns: TurnsSpec = Field(TurnsSpec(), description="turns of a session, each with the conversation so far")
    turn_tokens: LengthSpec = Field(
        LengthSpec(mean=32), description="sessions: what the user says after the first turn"
    )
    think_time_s: Number = Field(0.0, ge=0, description="sessions: mean time from an answer to the next turn")
    think_time: Literal["exponential", "constant"] = Field("exponential", description="sessions: spread of think times")
    cancel_share: Number = Field(0.0, ge=0, le=1, description="share of requests whose client hangs up")
    cancel_after_s: Number = Field(1.0, gt=0, description="when it hangs up, after it sent")
    slow_share: Number = Field(0.0, ge=0, le=1, description="share of requests whose client reads slowly")
    slow_bytes_per_s: Whole = Field(1000, ge=1, le=2**32 - 1, description="how fast a slow client reads")

    @property
    def sessions(self) -> bool:
        """Whether requests are turns of conversations."""
        return self.turns.mean > 1 or self.turns.stddev > 0

    @model_validator(mode="after")
    def _clients_fit(self) -> Self:
        if self.sessions and self.api != "chat":
            raise fault("sessions of several turns need the chat endpoint", field="turns", fix="api: chat (--api chat)")
        if self.sessions and self.kind == "trace":
            raise fault("a trace has its own sessions", field="turns", fix="leave turns out")
        if self.cancel_share + self.slow_share > 1:
            raise fault("cancel_share and slow_share are more than all requests", field="slow_share")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind != "synthetic" and not self.path:
            raise fault(
                f"workload kind {self.kind} reads a file", field="path", fix="path: FILE (--workload-path FILE)"
            )
        if self.kind == "synthetic" and self.path:
            raise fault(
                "synthetic prompts read no file", field="path", fix="kind: text, jsonl or sharegpt (--workload)"
            )
        if (
            self.kind == "synthetic"
            and self.shared_prefix_tokens
            and self.shared_prefix_tokens >= self.prompt_tokens.mean
        ):
            raise fault(
                f"a shared prefix of {self.shared_prefix_tokens} tokens leaves nothing of {self.prompt_tokens.mean}",
                field="shared_prefix_tokens",
                fix="make it shorter than prompt_tokens",
            )
        return self
