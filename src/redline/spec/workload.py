"""What is asked: prompts, their lengths, and how the answer is wanted."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault


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
    """

    kind: Literal["synthetic", "text", "jsonl", "sharegpt"] = Field("synthetic", description="where prompts come from")
    path: str = Field("", description="file for text, jsonl and sharegpt")
    api: Literal["chat", "completions", "responses", "embeddings"] = Field(
        "completions", description="endpoint to call"
    )
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
    embedding_batch: Whole = Field(1, ge=1, description="embeddings: inputs per request, each of prompt_tokens")
    embedding_format: Literal["float", "base64"] = Field("float", description="embeddings: how vectors are sent back")

    @property
    def chat(self) -> bool:
        """Whether prompts are conversations, which a chat template goes around."""
        return self.api in ("chat", "responses")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.embedding_batch > 1 and self.api != "embeddings":
            raise fault(
                f"the {self.api} endpoint takes one prompt per request",
                field="embedding_batch",
                fix="api: embeddings (--api embeddings)",
            )
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
