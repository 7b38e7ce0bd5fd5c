"""The experiment: everything that a run depends on, as one frozen value."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Annotated, Self

import orjson
from pydantic import AfterValidator, Field, model_validator

from redline.spec.engine import EngineSpec
from redline.spec.load import LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.observe import ObserveSpec
from redline.spec.price import PriceSpec
from redline.spec.record import Spec, Whole, fault
from redline.spec.search import SearchSpec
from redline.spec.slo import SloSpec
from redline.spec.threshold import parse_threshold
from redline.spec.workload import WorkloadSpec


def _is_threshold(text: str) -> str:
    return parse_threshold(text).text


ThresholdText = Annotated[str, AfterValidator(_is_threshold)]


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
    search: SearchSpec = Field(SearchSpec(), description="a load to look for instead of the listed ones")
    observe: ObserveSpec = Field(ObserveSpec(), description="what is watched meanwhile")
    price: PriceSpec = Field(PriceSpec(), description="what the box costs")
    thresholds: list[ThresholdText] = Field(
        default_factory=list, description="what every run must reach: ttft_ms.p99 < 500 @ 8 clients; exit code 5 if not"
    )
    repeats: Whole = Field(1, ge=1, description="how often each engine is started and measured")
    rounds: Whole = Field(
        1, ge=1, description="how often every load point is measured on every engine in turn, in alternating order"
    )
    seed: Whole = Field(0, ge=0, description="seed of prompts and arrivals")

    @model_validator(mode="after")
    def _labels_are_unique(self) -> Self:
        for what, labels in (
            ("engines", [engine.label for engine in self.engines]),
            ("models", [model.served_name for model in self.models]),
        ):
            label, count = Counter(labels).most_common(1)[0]
            if count > 1:
                second = [index for index, other in enumerate(labels) if other == label][1]
                raise fault(
                    f"{count} {what} are called {label!r}",
                    field=f"{what}.{second}",
                    fix="give each its own name (name: in the file, NAME=ENGINE in a flag)",
                )
        return self

    @model_validator(mode="after")
    def _a_search_has_an_aim(self) -> Self:
        if self.search.goal == "slo" and not self.slo.terms:
            raise fault(
                "a search for the most load under an SLO needs an SLO",
                field="search.goal",
                fix="slo: {ttft_ms: 500} (--slo-ttft 500), or goal: knee",
            )
        return self

    @model_validator(mode="after")
    def _a_cap_has_something_to_cap(self) -> Self:
        load, search = self.load, self.search
        is_open = bool(load.rate or load.trace_speed or (load.stages and load.stages[0].open))
        if load.max_in_flight and not is_open and (search.goal == "off" or search.over != "rate"):
            raise fault(
                "max_in_flight caps an open loop; a closed loop has exactly its clients in flight",
                field="load.max_in_flight",
                fix="rate: [R] (--rate R), or leave max_in_flight out",
            )
        if load.max_in_flight and self.workload.turns.mean > 1:
            raise fault(
                "max_in_flight does not hold back the turns of a conversation",
                field="load.max_in_flight",
                fix="leave it out, or ask for single turns",
            )
        return self

    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON: equal experiments, equal hash."""
        fields = self.model_dump(mode="json")
        if self.observe == ObserveSpec():
            del fields["observe"]  # experiments from before it was there keep their hash
        body = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(body).hexdigest()[:16]
