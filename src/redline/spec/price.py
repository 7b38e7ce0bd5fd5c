"""What the box costs, as its user pays for it. Nothing is assumed: without a price there is no cost."""

from __future__ import annotations

from pydantic import Field

from redline.spec.record import Number, Spec, Whole


class PriceSpec(Spec):
    """Price per hour of one GPU, or of the whole box with `gpus: 1`."""

    gpu_hour: Number | None = Field(None, gt=0, description="price of one GPU (or of the box) for an hour")
    gpus: Whole = Field(1, ge=1, description="how many of them the engine is given")
    currency: str = Field("USD", min_length=1, max_length=8, description="currency of the price")

    @property
    def per_second(self) -> float | None:
        return None if self.gpu_hour is None else self.gpu_hour * self.gpus / 3600
