"""A load that is looked for instead of listed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, fault


class SearchSpec(Spec):
    """`goal` knee finds where throughput stops following the load; slo the most load at which `slo.attainment` of the
    requests keep every term of the SLO. Each load point costs at most warm-up + `load.duration_s` + `load.drain_s`.
    """

    goal: Literal["off", "knee", "slo"] = Field("off", description="look for this load instead of the listed ones")
    over: Literal["concurrency", "rate"] = Field("concurrency", description="what the search varies")
    low: Number = Field(1.0, gt=0, description="load to begin with: clients, or requests per second")
    high: Number = Field(0.0, ge=0, description="highest load to try; 0: as far as it takes")
    budget_s: Number = Field(600.0, gt=0, description="time for the whole search of one engine, start-up not counted")
    precision: Number = Field(0.1, gt=0, le=1, description="relative width at which the answer is good enough")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.high and self.high < self.low:
            raise fault(f"high {self.high:g} is below low {self.low:g}", field="high")
        if self.over == "concurrency" and (self.low != round(self.low) or self.high != round(self.high)):
            raise fault("clients are whole numbers", field="low" if self.low != round(self.low) else "high")
        return self
