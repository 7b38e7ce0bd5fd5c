"""The phase of a load point's measurement, and what of its plan is kept for the report."""

from __future__ import annotations

from typing import Any

from redline.load.arrivals import client_levels, schedule, stage_schedule, total_s
from redline.load.frames import Arrivals, Phase
from redline.spec.load import LoadPoint, LoadSpec
from redline.units import NS_PER_S


def clients_of(point: LoadPoint) -> int:
    """Most clients of a closed loop; 0 for an open one."""
    return int(point.value) if point.kind in ("closed", "stages-closed") else 0


def measured_phase(point: LoadPoint, load: LoadSpec, seed: int) -> Phase:
    """Without the requests themselves."""
    clients = clients_of(point)
    seconds = total_s(load.stages) if point.kind.startswith("stages") else load.duration_s
    phase = Phase(
        Arrivals.CLOSED if clients else Arrivals.OPEN,
        clients=clients or 1,
        requests=load.requests,
        duration_ns=int(seconds * NS_PER_S),
        drain_ns=int(load.drain_s * NS_PER_S),
        ramp_ns=int(load.ramp_s * NS_PER_S),
        preconnect=bool(clients),
    )
    if point.kind == "stages-closed":
        phase.levels = client_levels(load.stages)
    elif point.kind == "stages":
        phase.offsets_ns = stage_schedule(load.stages, seed=seed, requests=load.requests, burstiness=load.burstiness)
    elif not clients:
        phase.offsets_ns = schedule(
            point, seed=seed, duration_s=load.duration_s, requests=load.requests, burstiness=load.burstiness
        )
    return phase


def traffic_of(point: LoadPoint, load: LoadSpec) -> dict[str, Any]:
    """What is kept with the point, so that a report needs no experiment to know its parts."""
    if point.kind == "gamma":
        return {"burstiness": load.burstiness}
    if not point.kind.startswith("stages"):
        return {}
    stages, at_s = [], 0.0
    for stage in load.stages:
        until_s = at_s + stage.duration_s
        stages.append(
            {"label": stage.label, "from_s": at_s, "until_s": until_s, "open": stage.open, "mean": stage.mean}
        )
        at_s = until_s
    return {"stages": stages}
