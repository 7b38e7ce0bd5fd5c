"""The experiment: everything that a run depends on, as one frozen value."""

from __future__ import annotations

import hashlib

import orjson
from pydantic import Field

from redline.spec.engine import EngineSpec
from redline.spec.load import LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.record import Spec
from redline.spec.slo import SloSpec
from redline.spec.workload import WorkloadSpec


class Experiment(Spec):
    """Every model on every engine at every load point, `repeats` times."""

    name: str = Field("", description="a name for people")
    models: list[ModelSpec] = Field(min_length=1, description="models to serve, each on every engine")
    engines: list[EngineSpec] = Field(
        min_length=1, description="engine configurations; the first is the reference of ratios"
    )
    workload: WorkloadSpec = Field(WorkloadSpec(), description="what is asked")
    load: LoadSpec = Field(LoadSpec(), description="how hard is pushed")
    slo: SloSpec = Field(SloSpec(), description="which promise is kept")
    repeats: int = Field(1, ge=1, description="how often each engine is started and measured")
    seed: int = Field(0, ge=0, description="seed of prompts and arrivals")

    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON: equal experiments, equal hash."""
        body = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(body).hexdigest()[:16]
