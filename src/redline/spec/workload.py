"""What is asked: prompts, their lengths, and how the answer is wanted."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from redline.spec.cache import CacheState
from redline.spec.length import LengthSpec
from redline.spec.record import Number, Spec, Whole, fault
from redline.spec.request_class import Api, ClassSpec, Kind, VectorFormat
from redline.spec.turns import TurnsSpec

SLOW_READER = "slow reader"
"""Class of the requests whose client reads slowly on purpose: no latency is taken of them."""

__all__ = ["ClassSpec", "LengthSpec", "WorkloadSpec"]


class WorkloadSpec(Spec):
    """`kind` synthetic makes prompts of exact length; text, jsonl and sharegpt read `path`, hub a data set.

    jsonl: one object a line with `prompt` (text) or `messages` (chat), and optionally `output_tokens`.
    sharegpt: the ShareGPT JSON list; the first human turn is the prompt, the answer's length the output length (with
    several `turns`, the whole conversation).
    hub: a data set of the Hugging Face hub, by its id in `path`; needs the datasets package.
    trace: recorded lengths, with their times where load has trace_speed. With several `turns`, requests are sessions.
    """

    kind: Kind = Field("synthetic", description="where prompts come from")
    path: str = Field("", description="file for text, jsonl, sharegpt and trace; id of a data set for hub")
    api: Api = Field("completions", description="endpoint to call")
    prompt_tokens: LengthSpec = Field(LengthSpec(mean=128), description="prompt length, chat template included")
    output_tokens: LengthSpec = Field(LengthSpec(mean=64), description="answer length asked for")
    shared_prefix_tokens: Whole = Field(0, ge=0, description="tokens that all prompts begin with")
    prefixes: Whole = Field(1, ge=1, description="different shared prefixes, of which each prompt has one")
    prefix_skew: Number = Field(
        0.0, ge=0, description="popularity of the prefixes: 0 is equal, 1 is Zipf's law, more is steeper"
    )
    hub_split: str = Field("train", description="hub: split of the data set")
    hub_column: str = Field("", description="hub: column of the prompts; found by itself when empty")
    ignore_eos: bool = Field(True, description="make every answer exactly as long as asked, where the engine can")
    stream: bool = Field(True, description="stream the answer; without it there is no TTFT")
    temperature: Number = Field(0.0, ge=0, description="0 is greedy")
    cache: CacheState = Field(
        "cold",
        description="what a prefix cache may hold: cold (every prompt starts differently), warm:X% (so much of each "
        "prompt was sent before) or natural (nothing is changed)",
    )
    canary_share: Number = Field(
        0.02, ge=0, le=0.5, description="share of requests that are fixed prompts whose answers are compared; 0 is none"
    )
    keep_text: bool = Field(False, description="store what was generated")
    trace_format: Literal["auto", "mooncake", "burstgpt", "azure", "otel", "redline"] = Field(
        "auto", description="trace: how path is written; auto finds out"
    )
    turns: TurnsSpec = Field(TurnsSpec(), description="turns of a session, each with the conversation so far")
    turn_tokens: LengthSpec = Field(LengthSpec(mean=32), description="sessions: what the user says in later turns")
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
        if self.classes and (self.sessions or self.kind == "trace" or any(one.kind == "trace" for one in self.classes)):
            raise fault(
                "sessions and traces cannot be mixed with classes of requests",
                field="classes",
                fix="make two experiments",
            )
        if self.sessions and self.kind == "trace":
            raise fault("a trace has its own sessions", field="turns", fix="leave turns out")
        if self.cancel_share + self.slow_share > 1:
            raise fault("cancel_share and slow_share are more than all requests", field="slow_share")
        return self

    images_per_request: Whole = Field(0, ge=0, description="pictures beside the text of each prompt")
    image_width: Whole = Field(512, ge=1, le=16384, description="pixels; each picture is new noise")
    image_height: Whole = Field(512, ge=1, le=16384, description="pixels")
    image_path: str = Field("", description="folder of PNG and JPEG files to send instead of noise")
    embedding_batch: Whole = Field(1, ge=1, description="embeddings: inputs per request, each of prompt_tokens")
    embedding_format: VectorFormat = Field("float", description="embeddings: how vectors are sent back")
    classes: list[ClassSpec] = Field(
        default_factory=list, description="classes of requests, each a workload of its own"
    )

    @property
    def chat(self) -> bool:
        """Whether prompts are conversations, which a chat template goes around."""
        return self.api in ("chat", "responses")

    @property
    def parts(self) -> dict[str, WorkloadSpec]:
        """The workload of each class by name; of one without classes itself, under ''."""
        return {one.name: self._of(one) for one in self.classes} or {"": self}

    def _of(self, one: ClassSpec) -> WorkloadSpec:
        """The whole workload of one class."""
        return WorkloadSpec.model_validate({**self.model_dump(exclude={"classes"}), **one.changes})

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
        if not self.classes:  # else this is only what its classes have in common
            _check_kind(self)
            _check_prefix(self)
            _check_api(self)
            _check_cache(self)
        seen: set[str] = set()
        for place, one in enumerate(self.classes):
            if one.name in seen:
                raise fault(f"two classes are called {one.name!r}", field=f"classes.{place}.name", fix="rename one")
            seen.add(one.name)
            try:
                self._of(one)
            except ValidationError as error:
                raise _in_class(error.errors()[0], place, one.name) from None
        return self


def _in_class(error: Any, place: int, name: str) -> Exception:
    """The first thing that is wrong with one class, said at its place."""
    context = error.get("ctx") or {}
    field = str(context.get("field") or ".".join(str(step) for step in error["loc"]))
    text = f"class {name}: {context.get('message') or error['msg']}"
    return fault(text, field=f"classes.{place}.{field}", fix=str(context.get("fix") or ""))


def _check_kind(work: WorkloadSpec) -> None:
    if work.kind == "hub" and not work.path:
        raise fault(
            "workload kind hub reads a data set", field="path", fix="path: OWNER/NAME (--workload-path OWNER/NAME)"
        )
    if work.kind != "synthetic" and not work.path:
        raise fault(f"workload kind {work.kind} reads a file", field="path", fix="path: FILE (--workload-path FILE)")
    if work.kind == "synthetic" and work.path:
        raise fault(
            "synthetic prompts read no file", field="path", fix="kind: text, jsonl, sharegpt or hub (--workload)"
        )


def _check_prefix(work: WorkloadSpec) -> None:
    if work.kind == "synthetic" and work.shared_prefix_tokens and work.shared_prefix_tokens >= work.prompt_tokens.mean:
        raise fault(
            f"a shared prefix of {work.shared_prefix_tokens} tokens leaves nothing of {work.prompt_tokens.mean}",
            field="shared_prefix_tokens",
            fix="make it shorter than prompt_tokens",
        )
    if work.kind != "synthetic" and work.shared_prefix_tokens:
        raise fault(
            f"prompts of workload kind {work.kind} are sent as they are, without a shared prefix",
            field="shared_prefix_tokens",
            fix="synthetic prompts, or prompts that begin alike in the file",
        )
    if work.prefixes > 1 and not work.shared_prefix_tokens:
        raise fault(
            f"{work.prefixes} prefixes of no length",
            field="prefixes",
            fix="shared_prefix_tokens: N (--shared-prefix-tokens N)",
        )


def _check_api(work: WorkloadSpec) -> None:
    if work.embedding_batch > 1 and work.api != "embeddings":
        raise fault(
            f"the {work.api} endpoint takes one prompt per request",
            field="embedding_batch",
            fix="api: embeddings (--api embeddings)",
        )
    if work.images_per_request and not work.chat:
        raise fault(
            f"the {work.api} endpoint takes no pictures", field="images_per_request", fix="api: chat (--api chat)"
        )


def _check_cache(work: WorkloadSpec) -> None:
    if work.warm_share and (work.kind != "synthetic" or work.shared_prefix_tokens):
        what = "a shared prefix" if work.kind == "synthetic" else f"workload kind {work.kind}"
        raise fault(
            f"cache {work.cache} makes prompts of its own and goes with no other: not with {what}",
            field="cache",
            fix="cache: cold or natural (--cache natural), or synthetic prompts without shared_prefix_tokens",
        )
