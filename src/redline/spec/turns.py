"""How many turns a session has."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault


class TurnsSpec(Spec):
    """A number of turns: a constant when `stddev` is 0, else a normal draw clipped to [min, max]. 1: no sessions."""

    mean: Whole = Field(1, ge=1, description="requests of one conversation")
    stddev: Number = Field(0.0, ge=0, description="spread of the number of turns")
    min: Whole = Field(1, ge=1, description="fewest turns")
    max: Whole = Field(1_000, ge=1, description="most turns")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min <= self.mean <= self.max:
            raise fault(f"mean {self.mean} lies outside [{self.min}, {self.max}]", field="mean")
        return self
