"""Which promise is kept: limits that a request must meet to count as good."""

from __future__ import annotations

from pydantic import Field

from redline.spec.record import Number, Spec


class SloSpec(Spec):
    """A request is good when it succeeded and meets every limit that is set. Unset limits do not count.

    `itl_ms` limits the request's own 99th percentile of inter-token gaps; the others limit its single value.
    """

    ttft_ms: Number | None = Field(None, gt=0, description="time to first token, from the intended start")
    tpot_ms: Number | None = Field(None, gt=0, description="time per output token after the first")
    itl_ms: Number | None = Field(None, gt=0, description="99th percentile of the request's inter-token gaps")
    e2e_ms: Number | None = Field(None, gt=0, description="end to end, from the intended start")
    attainment: Number = Field(0.95, gt=0, le=1, description="share of requests that must be good")

    @property
    def terms(self) -> dict[str, float]:
        """The limits that are set, by metric name."""
        named = {"ttft_ms": self.ttft_ms, "tpot_ms": self.tpot_ms, "itl_ms": self.itl_ms, "e2e_ms": self.e2e_ms}
        return {name: value for name, value in named.items() if value is not None}
