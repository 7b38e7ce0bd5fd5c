"""How long a prompt or an answer is."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault


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
