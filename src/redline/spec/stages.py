"""Load that changes while a point is measured: stages, one after the other, each level or ramped."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault


class StageSpec(Spec):
    """`rate` (open loop) or `concurrency` (closed loop) for `duration_s`; with `to` a straight ramp to there."""

    rate: Number | None = Field(None, ge=0, description="open loop: requests per second")
    concurrency: Whole | None = Field(None, ge=0, description="closed loop: clients")
    to: Number | None = Field(None, ge=0, description="where a ramp ends; level without it")
    duration_s: Number = Field(gt=0, description="how long")
    arrivals: Literal["poisson", "constant", "gamma"] = Field("poisson", description="open loop: spacing of requests")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.rate is None) == (self.concurrency is None):
            raise fault(
                "a stage has either rate or concurrency",
                field="rate",
                fix="such as  {rate: 2, to: 10, duration_s: 30}  or  {concurrency: 8, duration_s: 30}",
            )
        if self.concurrency is not None and self.to is not None and self.to != int(self.to):
            raise fault(f"{self.to:g} is no number of clients", field="to", fix="a whole number")
        return self

    @property
    def begin(self) -> float:
        return float(self.rate if self.rate is not None else self.concurrency or 0)

    @property
    def end(self) -> float:
        return self.begin if self.to is None else float(self.to)

    @property
    def mean(self) -> float:
        return (self.begin + self.end) / 2

    @property
    def open(self) -> bool:
        return self.rate is not None

    @property
    def label(self) -> str:
        span = f"{self.begin:g}" if self.begin == self.end else f"{self.begin:g} → {self.end:g}"
        return f"{span} req/s" if self.open else f"{span} clients"


def check_stages(stages: list[StageSpec]) -> None:
    """One kind per experiment, and some load in it."""
    if not stages:
        return
    odd = next((i for i, stage in enumerate(stages) if stage.open != stages[0].open), None)
    if odd is not None:
        raise fault(
            "stages with rate and stages with concurrency cannot be mixed",
            field=f"stages.{odd}",
            fix="make two experiments",
        )
    if not any(stage.mean > 0 for stage in stages):
        raise fault("no stage sends anything", field="stages.0", fix="a rate or concurrency above 0")
