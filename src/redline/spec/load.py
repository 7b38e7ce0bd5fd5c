"""How hard is pushed: load points, and when each begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from redline.spec.record import Spec


@dataclass(frozen=True)
class LoadPoint:
    """One point of a sweep: `value` clients for `closed`, requests per second for `constant` and `poisson`."""

    kind: Literal["closed", "constant", "poisson"]
    value: float

    @property
    def label(self) -> str:
        return f"{self.value:g} clients" if self.kind == "closed" else f"{self.value:g} req/s {self.kind}"


class LoadSpec(Spec):
    """Closed loop (`concurrency`) or open loop (`rate` with `arrivals`); each value is one load point.

    A load point ends after `requests` measured requests or `duration_s`, whichever comes first; what is then in
    flight gets `drain_s` to finish, and what has not finished is cut off and recorded as `cancelled`.
    """

    concurrency: list[int] = Field([1, 10, 50], description="closed loop: clients, one load point each")
    rate: list[float] = Field(default_factory=list, description="open loop: requests per second, one load point each")
    arrivals: Literal["poisson", "constant"] = Field("poisson", description="open loop: spacing of requests")
    requests: int = Field(0, ge=0, description="measured requests per load point; 0 lets duration_s decide")
    duration_s: float = Field(20.0, gt=0, description="longest measured time per load point")
    warmup_requests: int = Field(
        0, ge=0, description="requests before the measurement; 0 means one per client, at most 16"
    )
    ramp_s: float = Field(0.0, ge=0, description="closed loop: spread the clients' first requests over this time")
    drain_s: float = Field(5.0, ge=0, description="time to finish what is in flight at the end")
    timeout_s: float = Field(600.0, gt=0, description="a request that takes longer has failed")
    idle_timeout_s: float = Field(60.0, gt=0, description="a stream that is silent for longer has failed")

    @property
    def points(self) -> list[LoadPoint]:
        if self.rate:
            return [LoadPoint(self.arrivals, value) for value in self.rate]
        return [LoadPoint("closed", value) for value in self.concurrency]
