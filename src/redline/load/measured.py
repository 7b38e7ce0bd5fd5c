"""The phase of a load point's measurement, and what of its plan is kept for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redline.errors import SpecError
from redline.load.arrivals import client_levels, schedule, stage_schedule, total_s
from redline.load.frames import Arrivals, Phase
from redline.load.trace import Row, Trace
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.stages import StageSpec
from redline.units import NS_PER_S

_SLICES = 10
_REQUESTS_PER_SLICE = 10


def clients_of(point: LoadPoint) -> int:
    """Most clients of a closed loop; 0 for an open one."""
    return int(point.value) if point.kind in ("closed", "stages-closed") else 0


def demand_of(trace: Trace | None, point: LoadPoint, load: LoadSpec) -> tuple[str, float]:
    """How much the load generator will have to do at most: clients (`closed`), or requests per second (`open`)."""
    if clients_of(point):
        return "closed", float(clients_of(point))
    if point.kind == "stages":
        return "open", max(max(stage.begin, stage.end) for stage in load.stages)
    if point.kind == "trace":
        rows = rows_of(trace, point, load)
        return "open", max((part["mean"] for part in _slices(rows, load, point.value)), default=1.0)
    return "open", point.value


def level_twin(trace: Trace | None, point: LoadPoint, load: LoadSpec) -> LoadPoint:
    """A point of one number that asks as much of the client as this one does at its hardest."""
    if point.kind not in ("stages", "stages-closed", "trace"):
        return point
    kind, most = demand_of(trace, point, load)
    return LoadPoint("closed" if kind == "closed" else "poisson", most)


def longest_s(point: LoadPoint, load: LoadSpec) -> float:
    """How long requests are sent."""
    return total_s(load.stages) if point.kind.startswith("stages") else load.duration_s


def rows_of(trace: Trace | None, point: LoadPoint, load: LoadSpec) -> list[Row]:
    """What of the trace this point sends: at its own times, or its lengths one after the other. Empty: no trace."""
    if trace is None:
        return []
    if point.kind != "trace":
        return [row for row in trace.rows if row.at_s >= load.trace_from_s]
    rows = trace.cut(speed=point.value, from_s=load.trace_from_s, duration_s=load.duration_s, requests=load.requests)
    if not rows:
        raise SpecError(
            f"the trace has no request from {load.trace_from_s:g} s on for {load.duration_s * point.value:g} s",
            field="load.trace_from_s",
            fix=f"it is {trace.rows[-1].at_s:.0f} s long",
        )
    return rows


def measured_phase(point: LoadPoint, load: LoadSpec, seed: int, rows: Sequence[Row] = ()) -> Phase:
    """Without the requests themselves. `rows` are those of a trace."""
    clients = clients_of(point)
    seconds = longest_s(point, load)
    phase = Phase(
        Arrivals.CLOSED if clients else Arrivals.OPEN,
        clients=clients or 1,
        requests=load.requests,
        duration_ns=int(seconds * NS_PER_S),
        drain_ns=int(load.drain_s * NS_PER_S),
        ramp_ns=int(load.ramp_s * NS_PER_S),
        preconnect=bool(clients),
        max_in_flight=0 if clients else load.max_in_flight,
    )
    if point.kind == "stages-closed":
        phase.levels = client_levels(load.stages)
    elif point.kind == "stages":
        phase.offsets_ns = stage_schedule(load.stages, seed=seed, requests=load.requests, burstiness=load.burstiness)
    elif point.kind == "trace":
        phase.offsets_ns = [int(row.at_s * NS_PER_S) for row in rows]
    elif not clients:
        phase.offsets_ns = schedule(
            point, seed=seed, duration_s=load.duration_s, requests=load.requests, burstiness=load.burstiness
        )
    return phase


def traffic_of(point: LoadPoint, load: LoadSpec, trace: Trace | None, rows: Sequence[Row]) -> dict[str, Any]:
    """What is kept with the point, so that a report needs no experiment to know its parts."""
    found: dict[str, Any] = {"burstiness": load.burstiness} if point.kind == "gamma" else {}
    if trace is not None:
        found["trace"] = {
            "requests": len(rows),
            "of": len(trace.rows),
            "recorded_s": trace.rows[-1].at_s,
            "shares_blocks": any(row.hash_ids for row in rows),
        }
    if point.kind == "trace" and rows:
        found["stages"] = _slices(rows, load, point.value)
    if point.kind.startswith("stages"):
        found["stages"] = stage_plan(load.stages)
    return found


def _slices(rows: Sequence[Row], load: LoadSpec, speed: float) -> list[dict[str, Any]]:
    """A trace in equal parts of time, which a report shows like stages: ten, or fewer when there are few requests."""
    many = max(1, min(_SLICES, len(rows) // _REQUESTS_PER_SLICE))
    seconds = min(load.duration_s, rows[-1].at_s) or load.duration_s
    counts = [0] * many
    for row in rows:
        counts[min(int(row.at_s / seconds * many), many - 1)] += 1
    each = seconds / many
    # the last request lies on the edge
    ends = [each * (k + 1) if k + 1 < many else seconds * (1 + 1e-9) + 1e-6 for k in range(many)]
    at_speed = "" if speed == 1 else f" at {speed:g}×"
    return [
        {
            "label": f"{each * k:.3g}–{each * (k + 1):.3g} s{at_speed}",
            "from_s": each * k,
            "until_s": ends[k],
            "open": True,
            "mean": count / each,
        }
        for k, count in enumerate(counts)
    ]


def stage_plan(stages: Sequence[StageSpec]) -> list[dict[str, Any]]:
    plan, at_s = [], 0.0
    for stage in stages:
        until_s = at_s + stage.duration_s
        plan.append({"label": stage.label, "from_s": at_s, "until_s": until_s, "open": stage.open, "mean": stage.mean})
        at_s = until_s
    return plan
