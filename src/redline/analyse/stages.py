"""A load that changes has no steady state: its numbers, stage by stage.

A request belongs to the stage in which it was to be sent; what it did later still counts there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redline.analyse.latency import latencies_of
from redline.analyse.percentile import percentile
from redline.analyse.slo import met
from redline.analyse.window import SteadyWindow, in_flight
from redline.store.requests import Requests
from redline.units import NS_PER_S

UNSTEADY = ("stages", "stages-closed", "trace")
"""Kinds of load points that are not meant to settle."""


@dataclass(frozen=True)
class Stage:
    """One stage of one load point. Latencies are NaN where nothing was counted; `goodput_per_s` is NaN without an SLO.

    `asked` is the mean of what was asked: requests per second of an open loop (`open`), else clients; `had` the same as
    it came out: requests sent per second, or requests in flight.
    """

    label: str
    open: bool
    asked: float
    had: float
    sent: int
    failed: int
    finished_per_s: float
    ttft_ms_p50: float
    ttft_ms_p99: float
    itl_ms_p50: float
    itl_ms_p99: float
    goodput_per_s: float
    counted: int = 0
    """Requests that the percentiles of TTFT are of,"""
    gaps: int = 0
    """and gaps that those of ITL are of."""


def whole_window(requests: Requests, measured_from_ns: int, ended_ns: int) -> SteadyWindow:
    """The window of a point that is not meant to be steady: from its begin until the last request was to be sent, or
    until everything was over when that is sooner."""
    own = requests.intended_ns[~requests.warmup]
    last = int(own.max()) if len(own) else measured_from_ns
    done = requests.finished_ns[~requests.warmup]
    until = max(last, min(ended_ns, int(done.max()) if len(done) else ended_ns))
    return SteadyWindow(measured_from_ns, max(until, measured_from_ns), True)


def by_stage(
    requests: Requests,
    plan: Sequence[Mapping[str, Any]],
    measured_from_ns: int,
    ended_ns: int,
    slo: Mapping[str, float],
) -> list[Stage]:
    """`plan` is `outcome["traffic"]["stages"]`."""
    steps = in_flight(requests, ended_ns)
    found = []
    for stage in plan:
        begin = measured_from_ns + round(stage["from_s"] * NS_PER_S)
        end = measured_from_ns + round(stage["until_s"] * NS_PER_S)
        here = requests.pick(~requests.warmup & (requests.intended_ns >= begin) & (requests.intended_ns < end))
        latencies = latencies_of(here)
        seconds = float(stage["until_s"]) - float(stage["from_s"])
        over = (requests.status == "ok") & (requests.finished_ns >= begin) & (requests.finished_ns < end)
        sent = int((here.sent_ns > 0).sum())
        gaps = latencies.gaps.percentiles([0.5, 0.99])
        found.append(
            Stage(
                label=str(stage["label"]),
                open=bool(stage["open"]),
                asked=float(stage["mean"]),
                had=sent / seconds if stage["open"] else steps.mean(begin, min(end, ended_ns)),
                sent=sent,
                failed=int(latencies.failed.sum()),
                finished_per_s=float((over & ~requests.warmup).sum()) / seconds,
                ttft_ms_p50=percentile(latencies.headline("ttft_ms"), 0.5),
                ttft_ms_p99=percentile(latencies.headline("ttft_ms"), 0.99),
                itl_ms_p50=gaps[0],
                itl_ms_p99=gaps[1],
                goodput_per_s=float(met(latencies, slo).sum()) / seconds if slo else math.nan,
                counted=len(latencies.headline("ttft_ms")),
                gaps=len(latencies.gaps),
            )
        )
    return found
