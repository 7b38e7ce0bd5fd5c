"""WHAT is served: a model, as a folder, a hub id, a bundled name or a published shape with random weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from redline.spec.record import Spec


class ModelSpec(Spec):
    """One model.

    `id` is a folder, a hub id (`meta-llama/Llama-3.1-8B`), `bundled:NAME` (a small trained model that ships with
    redline) or `shape:NAME` (the architecture of a published model with random weights: right for speed, memory and
    roofline, meaningless for quality).
    """

    id: str = Field(min_length=1, description="folder, hub id, bundled:NAME or shape:NAME")
    name: str = Field("", description="served model name; the last part of the id when empty")
    tokenizer: str = Field("", description="folder or hub id of another tokenizer")
    revision: str = Field("", description="hub revision: branch, tag or commit")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="weights and activations")
    random_weights: bool = Field(False, description="initialise instead of loading; implied by shape:NAME")

    @property
    def served_name(self) -> str:
        return self.name or self.id.rstrip("/").replace(":", "/").rsplit("/", 1)[-1]
