"""How hard is pushed: load points, and when each begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from redline.spec.record import Number, Spec, Whole, fault
from redline.spec.stages import StageSpec, check_stages

DEFAULT_CONCURRENCY = (1, 10, 50)
KINDS_OF_LOAD = {
    "concurrency": "closed loop",
    "rate": "open loop",
    "stages": "changing load",
    "trace_speed": "replayed trace",
}
"""Fields that say how hard is pushed; an experiment has one of them."""


@dataclass(frozen=True)
class LoadPoint:
    """One point of a sweep. `value` is clients for `closed`, requests per second for `constant`, `poisson` and `gamma`,
    the mean rate of `stages`, the most clients of `stages-closed`, and how many times as fast as recorded for `trace`.
    """

    kind: Literal["closed", "constant", "poisson", "gamma", "stages", "stages-closed", "trace"]
    value: float

    @property
    def label(self) -> str:
        """`10 clients`, `4 req/s poisson`, `stages, 6 req/s on average`, `trace at 2× speed`."""
        shown = f"{self.value:.4g}" if self.kind == "stages" else f"{self.value:g}"
        special = {
            "closed": f"{shown} client{'' if self.value == 1 else 's'}",
            "stages": f"stages, {shown} req/s on average",
            "stages-closed": f"stages, up to {shown} clients",
            "trace": f"trace at {shown}× speed",
        }
        return special.get(self.kind, f"{shown} req/s {self.kind}")


class LoadSpec(Spec):
    """Closed loop (`concurrency`), open loop (`rate` with `arrivals`), or a recorded trace (`trace_speed`): each value
    is one load point. `stages` are one load point all together, and last as long as they say.

    A load point ends after `requests` measured requests or `duration_s`, whichever comes first; what is then in
    flight gets `drain_s` to finish, and what has not finished is cut off and recorded as `cancelled`.
    """

    concurrency: list[Annotated[Whole, Field(ge=1)]] = Field(
        list(DEFAULT_CONCURRENCY), min_length=1, description="closed loop: clients, one load point each"
    )
    rate: list[Annotated[Number, Field(gt=0)]] = Field(
        default_factory=list, description="open loop: requests per second, one load point each"
    )
    arrivals: Literal["poisson", "constant", "gamma"] = Field("poisson", description="open loop: spacing of requests")
    max_in_flight: Whole = Field(
        0, ge=0, description="open loop: requests due beyond so many in flight wait, and keep their due time; 0: no cap"
    )
    burstiness: Number = Field(
        1.0, gt=0, description="gamma arrivals: shape; below 1 bursty, 1 is Poisson, above 1 more even"
    )
    stages: list[StageSpec] = Field(
        default_factory=list, description="load that changes within one point: rate or concurrency, to, duration_s"
    )
    trace_speed: list[Annotated[Number, Field(gt=0)]] = Field(
        default_factory=list, description="workload trace: how many times as fast as recorded, one load point each"
    )
    trace_from_s: Number = Field(0.0, ge=0, description="workload trace: leave out what was recorded before")
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
    warmup_again_s: Number = Field(
        120.0, gt=0, description="a server that was idle for so long between load points is warmed up as if it were new"
    )
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
        # the loader is stricter: it refuses two of the keys in one file, whatever they say
        given = [name for name in KINDS_OF_LOAD if getattr(self, name)]
        if tuple(self.concurrency) == DEFAULT_CONCURRENCY:
            given.remove("concurrency")
        if len(given) > 1:
            first, second = given[0], given[1]
            raise fault(both(first, second), field=second, fix="keep one of them, or make two experiments")
        for name in ("concurrency", "rate", "trace_speed"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise fault("a load point is listed twice", field=name, fix="repeats: N measures each point N times")
        if self.burstiness != 1 and "gamma" not in {self.arrivals, *(stage.arrivals for stage in self.stages)}:
            raise fault("burstiness is the shape of gamma arrivals", field="burstiness", fix="arrivals: gamma")
        check_stages(self.stages)
        return self

    @property
    def points(self) -> list[LoadPoint]:
        if self.stages:
            seconds = sum(stage.duration_s for stage in self.stages)
            if self.stages[0].open:
                return [LoadPoint("stages", sum(s.mean * s.duration_s for s in self.stages) / seconds)]
            return [LoadPoint("stages-closed", max(max(s.begin, s.end) for s in self.stages))]
        if self.trace_speed:
            return [LoadPoint("trace", value) for value in self.trace_speed]
        if self.rate:
            return [LoadPoint(self.arrivals, value) for value in self.rate]
        return [LoadPoint("closed", value) for value in self.concurrency]


def both(first: str, second: str) -> str:
    """What to say of two kinds of load in one experiment."""
    return f"{second} ({KINDS_OF_LOAD[second]}) and {first} ({KINDS_OF_LOAD[first]}) cannot be had together"
