"""How hard is pushed: load points, and when each begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault

DEFAULT_CONCURRENCY = (1, 10, 50)


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

    concurrency: list[Annotated[Whole, Field(ge=1)]] = Field(
        list(DEFAULT_CONCURRENCY), min_length=1, description="closed loop: clients, one load point each"
    )
    rate: list[Annotated[Number, Field(gt=0)]] = Field(
        default_factory=list, description="open loop: requests per second, one load point each"
    )
    arrivals: Literal["poisson", "constant"] = Field("poisson", description="open loop: spacing of requests")
    requests: Whole = Field(0, ge=0, description="measured requests per load point; 0 lets duration_s decide")
    duration_s: Number = Field(20.0, gt=0, description="longest measured time per load point")
    warmup_requests: Whole = Field(
        0, ge=0, description="requests before the measurement; 0 means one per client, at most 16"
    )
    warmup: Literal["auto", "stable", "fixed"] = Field(
        "auto",
        description="stable: warm up until batches take the same time; fixed: warmup_requests and no more; auto: "
        "stable where redline started the server and warmup_requests is not given",
    )
    warmup_s: Number = Field(15.0, gt=0, description="longest stable warm-up per load point")
    ramp_s: Number = Field(0.0, ge=0, description="closed loop: spread the clients' first requests over this time")
    calibrate_s: Number = Field(
        2.0, ge=0, description="time for learning the client's own error before each kind of load point; 0: do not"
    )
    drain_s: Number = Field(5.0, ge=0, description="time to finish what is in flight at the end")
    stamps: Literal["auto", "packet", "kernel", "user"] = Field(
        "auto", description="who says when a token arrived; auto takes the best that this box allows"
    )
    workers: Whole = Field(0, ge=0, description="processes that generate the load; 0 sizes them by the load point")
    pin: Literal["auto", "off"] = Field(
        "auto", description="auto: load workers on cores of their own, away from the server's, where the box has them"
    )
    timeout_s: Number = Field(600.0, gt=0, description="a request that takes longer has failed")
    idle_timeout_s: Number = Field(60.0, gt=0, description="a stream that is silent for longer has failed")

    @model_validator(mode="after")
    def _one_kind_of_load(self) -> Self:
        # the loader is stricter: it refuses both keys in one file, whatever they say
        if self.rate and tuple(self.concurrency) != DEFAULT_CONCURRENCY:
            raise fault(
                "rate (open loop) and concurrency (closed loop) cannot be had together",
                field="rate",
                fix="keep one of them, or make two experiments",
            )
        for name, values in (("concurrency", self.concurrency), ("rate", self.rate)):
            if len(set(values)) != len(values):
                raise fault("a load point is listed twice", field=name, fix="repeats: N measures each point N times")
        return self

    @property
    def points(self) -> list[LoadPoint]:
        if self.rate:
            return [LoadPoint(self.arrivals, value) for value in self.rate]
        return [LoadPoint("closed", value) for value in self.concurrency]
