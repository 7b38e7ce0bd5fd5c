"""What is asked: prompts, their lengths, and how the answer is wanted."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault

_WARM = re.compile(r"warm:(\d+(?:\.\d+)?)%?")


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


def _cache(value: Any) -> Any:
    """`warm:50` is `warm:50%`."""
    if not isinstance(value, str):
        return value
    if value in ("cold", "natural"):
        return value
    found = _WARM.fullmatch(value)
    if found is None or not 0 < float(found[1]) < 100:
        raise fault(f"cache {value!r} is none of cold, natural, warm:X%", fix="for example warm:50%")
    return f"warm:{float(found[1]):g}%"


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
    shared_prefix_tokens: Whole = Field(0, ge=0, description="tokens that all prompts begin with")
    ignore_eos: bool = Field(True, description="make every answer exactly as long as asked, where the engine can")
    stream: bool = Field(True, description="stream the answer; without it there is no TTFT")
    temperature: Number = Field(0.0, ge=0, description="0 is greedy")
    cache: Annotated[str, BeforeValidator(_cache)] = Field(
        "cold",
        description="what a prefix cache may hold: cold (every prompt starts differently), warm:X% (so much of each "
        "prompt was sent before) or natural (nothing is changed)",
    )
    canary_share: Number = Field(
        0.02, ge=0, le=0.5, description="share of requests that are fixed prompts whose answers are compared; 0 is none"
    )
    keep_text: bool = Field(False, description="store what was generated")

    @model_validator(mode="before")
    @classmethod
    def _salt(cls, values: Any) -> Any:
        """`salt`, as files and stored runs from before `cache` have it."""
        if not isinstance(values, dict) or "salt" not in values:
            return values
        rest = {name: value for name, value in values.items() if name != "salt"}
        return {"cache": "natural" if values["salt"] in (False, "no", "off") else "cold", **rest}

    @property
    def warm_share(self) -> float:
        """The share of each prompt that was sent before; 0 unless `cache` is warm."""
        return float(self.cache[5:-1]) / 100 if self.cache.startswith("warm:") else 0.0

    @property
    def salted(self) -> bool:
        """Every prompt has a unique start, behind what it shares on purpose."""
        return self.cache != "natural"

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
        if self.warm_share and (self.kind != "synthetic" or self.shared_prefix_tokens):
            what = "a shared prefix" if self.kind == "synthetic" else f"workload kind {self.kind}"
            raise fault(
                f"cache {self.cache} makes prompts of its own and goes with no other: not with {what}",
                field="cache",
                fix="cache: cold or natural (--cache natural), or synthetic prompts without shared_prefix_tokens",
            )
        return self
