"""Loads that are not one number: random streams, stages, traces, clients that go away."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from redline.analyse.case import Case, Rule, Said
from redline.analyse.stages import by_stage

_ENDED_EARLY = ("interrupted", "engine-died", "failing", "refused")


def spread_of(case: Case, kind: str) -> float:
    """How far the number of arrivals strays, in units of its square root: 1 for a Poisson stream, 0 for a constant."""
    if kind == "gamma":
        return 1 / math.sqrt(float(traffic_of(case.outcome).get("burstiness", 1.0)))
    return 1.0 if kind == "poisson" else 0.0


def traffic_of(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of the load, as far as it is not one number."""
    found = outcome.get("traffic")
    return found if isinstance(found, dict) else {}


def stage_not_reached(case: Case) -> Said:
    """In a closed loop, clients that were asked for and not there; an open loop sends whatever happens."""
    plan = traffic_of(case.outcome).get("stages")
    begin = case.number("measured_from_ns")
    if not plan or plan[0].get("open") or math.isnan(begin) or _ended_early(case):
        return None
    for number, stage in enumerate(by_stage(case.requests, plan, int(begin), case.ended_ns, {}), 1):
        if stage.had < 0.9 * stage.asked:
            return "degraded", (
                f"the load asked for was not reached in stage {number} ({stage.label}): "
                f"{stage.had:.1f} in flight instead of {stage.asked:.1f}"
            )
    return None


def plan_not_sent(case: Case) -> Said:
    """Stages and traces of an open loop: every request of the plan has to leave."""
    if case.asked is None or case.asked[0] not in ("stages", "trace") or _ended_early(case):
        return None
    planned, sent = case.number("planned"), case.number("sent")
    if not sent < 0.99 * planned:
        return None
    return "degraded", f"the load asked for was not reached: {sent:.0f} requests sent of {planned:.0f} planned"


def _ended_early(case: Case) -> bool:
    return str(case.outcome.get("stopped_by", "")) in _ENDED_EARLY


RULES: tuple[Rule, ...] = (
    stage_not_reached,
    plan_not_sent,
)
