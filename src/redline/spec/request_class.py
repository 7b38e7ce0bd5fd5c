"""One class of a mixed workload: how many of the requests it makes up, what they ask, and what they are promised."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from redline.spec.length import LengthSpec
from redline.spec.record import Number, Spec, Whole

Api = Literal["chat", "completions", "responses", "embeddings"]
Kind = Literal["synthetic", "text", "jsonl", "sharegpt", "hub"]
VectorFormat = Literal["float", "base64"]
OWN = ("name", "weight", "priority", "slo")


class ClassSlo(Spec):
    """Limits for the requests of one class; what is not given is as in the `slo` of the experiment."""

    ttft_ms: Number | None = Field(None, gt=0)
    tpot_ms: Number | None = Field(None, gt=0)
    itl_ms: Number | None = Field(None, gt=0)
    e2e_ms: Number | None = Field(None, gt=0)
    attainment: Number | None = Field(None, gt=0, le=1)


class ClassSpec(Spec):
    """A workload of its own: what is not given is as in the workload around it.

    `weight` is its part of the requests, relative to the other classes; `priority` goes along where the server takes
    it (vLLM: lower is served earlier, with --scheduling-policy priority).
    """

    name: str = Field(min_length=1, description="what its rows are called")
    weight: Number = Field(1.0, gt=0, description="part of the requests, relative to the other classes")
    priority: Annotated[Whole, Field(ge=-(2**53))] = Field(0, description="sent where the server takes it")
    slo: ClassSlo = Field(ClassSlo(), description="promise to this class")
    kind: Kind | None = None
    path: str | None = None
    api: Api | None = None
    prompt_tokens: LengthSpec | None = None
    output_tokens: LengthSpec | None = None
    shared_prefix_tokens: Whole | None = None
    prefixes: Whole | None = None
    prefix_skew: Number | None = None
    hub_split: str | None = None
    hub_column: str | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    temperature: Number | None = None
    images_per_request: Whole | None = None
    image_width: Whole | None = None
    image_height: Whole | None = None
    image_path: str | None = None
    embedding_batch: Whole | None = None
    embedding_format: VectorFormat | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields of the workload that this class has its own way."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in OWN}
        return {name: value for name, value in values.items() if value is not None}
