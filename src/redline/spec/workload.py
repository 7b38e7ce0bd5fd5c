"""What is asked: prompts, their lengths, and how the answer is wanted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from redline.spec.record import Spec


class LengthSpec(Spec):
    """A number of tokens: a constant when `stddev` is 0, else a normal draw clipped to [min, max]."""

    mean: int = Field(ge=1, description="tokens")
    stddev: float = Field(0.0, ge=0, description="tokens")
    min: int = Field(1, ge=1, description="tokens")
    max: int = Field(1_000_000, ge=1, description="tokens")


class WorkloadSpec(Spec):
    """`kind` synthetic makes prompts of exact length; text, jsonl and sharegpt read `path`.

    jsonl: one object a line with `prompt` (text) or `messages` (chat), and optionally `output_tokens`.
    sharegpt: the ShareGPT JSON list; the first human turn is the prompt, the answer's length the output length.
    """

    kind: Literal["synthetic", "text", "jsonl", "sharegpt"] = Field("synthetic", description="where prompts come from")
    path: str = Field("", description="file for text, jsonl and sharegpt")
    api: Literal["chat", "completions"] = Field("completions", description="endpoint to call")
    prompt_tokens: LengthSpec = Field(LengthSpec(mean=128), description="prompt length, chat template included")
    output_tokens: LengthSpec = Field(LengthSpec(mean=64), description="answer length asked for")
    shared_prefix_tokens: int = Field(0, ge=0, description="tokens that all prompts begin with")
    ignore_eos: bool = Field(True, description="make every answer exactly as long as asked, where the engine can")
    stream: bool = Field(True, description="stream the answer; without it there is no TTFT")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    salt: bool = Field(
        True, description="make every prompt start differently, so that no prefix cache answers by accident"
    )
    keep_text: bool = Field(False, description="store what was generated")
