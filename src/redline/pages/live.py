"""A run that another process is writing: what changed since the page last asked. The page asks once a second.

Nothing is kept between two questions, so a page survives whatever happens to the writer, to the file, or to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from redline.clock import now_ns
from redline.pages.desk import Desk, json_answer
from redline.pages.telemetry import read
from redline.report.numbers import number
from redline.store.browse import Browser
from redline.units import NS_PER_MS, NS_PER_S

BUCKET_NS = NS_PER_S
SETTLED_NS = 3 * NS_PER_S
"""A second is over for good when so much time has passed: the writer commits within a fifth of one."""
MOST_SECONDS = 180
SAMPLED = (
    "client.in_flight", "client.output_tokens_per_s", "engine.cpu_cores", "engine.rss_bytes", "host.cpu_busy_share",
    "gpu.utilisation_share", "gpu.memory_used_bytes", "gpu.power_w",
)  # fmt: skip
SAMPLED_S = 120


def live_state(desk: Desk, request: Request) -> Response:
    query = request.query_params
    after, sampled = (_whole(query.get(name, "0")) for name in ("after", "sampled"))
    with desk.open() as reader, reader.snapshot():
        row = reader.run(request.path_params["run"])
        steps = reader.steps(row.id)
        newest = reader.newest_requests(row.id, after)
        current = next((step for step in reversed(steps) if step["point"] is not None), None)
        count = reader.points_counts(row.id).get(current["point"], 0) if current else 0
        sampled_now = live_samples(reader, row.id, sampled or now_ns() - SAMPLED_S * NS_PER_S, row.started_ns)
    going_on = row.status == "running"
    point = _point(current, count, going_on) if current else None
    buckets, cursor = seconds(newest, current["started_ns"] if current else 0, after)
    return json_answer(
        {
            "going_on": going_on, "status": row.status, "verdict": row.verdict,
            "elapsed_s": (now_ns() - row.started_ns) / NS_PER_S if going_on else row.duration_s,
            "done": sum(step["ended_ns"] is not None and step["point"] is not None for step in steps),
            "points": sum(step["point"] is not None for step in steps), "point": point, "step": _said(steps, point),
            "buckets": buckets, "after": cursor, "newest": newest_numbers(newest), **sampled_now,
        }
    )  # fmt: skip


def _whole(text: str) -> int:
    return min(int(text), 2**62) if text.isascii() and text.isdigit() else 0


def _point(step: Any, count: int, going_on: bool) -> dict[str, Any]:
    began, measured, ended = step["started_ns"], step["measured_from_ns"], step["ended_ns"]
    over = ended is not None
    return {
        "id": step["point"], "label": step["label"], "engine": step["engine"], "verdict": step["verdict"],
        "over": over, "requests": count,
        "elapsed_s": ((ended if over else now_ns() if going_on else measured or began) - began) / NS_PER_S,
    }  # fmt: skip


def _said(steps: Sequence[Any], point: dict[str, Any] | None) -> str:
    """What the run is doing, in words."""
    if not steps:
        return "getting ready"
    last = steps[-1]
    who = f"{last['engine']} on {last['model']}" + (f", repeat {last['repeat'] + 1}" if last["repeat"] else "")
    if last["status"] == "starting":
        return f"{who} is starting"
    if point is None or last["point"] is None:
        return f"{who} is getting ready to be loaded"
    if last["ended_ns"] is not None:
        return f"{who}: {last['label']} is done"
    return f"{who}: {last['label']}"


def seconds(rows: Sequence[tuple[int, ...]], start_ns: int, after: int) -> tuple[list[dict[str, Any]], int]:
    """Finished requests by the second of the load point in which they ended, and the id to ask after next.

    Seconds that may still grow are given again, whole, next time.
    """
    if not rows:
        return [], after
    table = np.array(rows, np.int64)
    ids, intended, first, finished, tokens, failed = (table[:, i] for i in (0, 2, 3, 5, 6, 8))
    second = np.where(finished > 0, (finished - start_ns) // BUCKET_NS, -1)
    newest = int(second.max())
    settled = (min(now_ns(), int(finished.max()) + SETTLED_NS) - SETTLED_NS - start_ns) // BUCKET_NS
    found = []
    for one in range(max(newest - MOST_SECONDS, 0), newest + 1):
        mine = second == one
        waits = (first - intended)[mine & (failed == 0) & (first > 0)] / NS_PER_MS
        found.append(
            {
                "s": one, "finished": int(mine.sum()), "failed": int(failed[mine].sum()),
                "tokens": int(tokens[mine].sum()),
                "ttft_p50": float(np.percentile(waits, 50)) if len(waits) else None,
                "ttft_max": float(waits.max()) if len(waits) else None,
            }
        )  # fmt: skip
    open_ids = ids[second >= settled]
    cursor = int(open_ids.min()) - 1 if len(open_ids) else int(ids.max())
    if after:  # what was whole when it was last given would be a part only
        whole = int(second[ids == ids.min()][0])
        found = [one for one in found if one["s"] >= min(whole, settled)]
    return found, max(cursor, after)


def newest_numbers(rows: Sequence[tuple[int, ...]]) -> dict[str, str]:
    """Of the newest requests, as they would stand in a table."""
    table = np.array(rows[-500:], np.int64).reshape(-1, 10)
    good = table[(table[:, 8] == 0) & (table[:, 9] == 0) & (table[:, 3] > 0)]
    if not len(good):
        return {}
    ttft = (good[:, 3] - good[:, 2]) / NS_PER_MS
    many = good[good[:, 7] > 1]
    gaps = (many[:, 4] - many[:, 3]) / (many[:, 7] - 1) / NS_PER_MS if len(many) else np.array([np.nan])
    return {
        "of": f"{len(good):,}", "ttft_p50": number(float(np.percentile(ttft, 50))),
        "ttft_p99": number(float(np.percentile(ttft, 99))), "gap_p50": number(float(np.percentile(gaps, 50))),
    }  # fmt: skip


def live_samples(reader: Browser, run_id: str, from_ns: int, start_ns: int) -> dict[str, Any]:
    """The series of SAMPLED that have something new, in seconds since the run began; and when to ask from next."""
    found = read(reader, run_id, SAMPLED, from_ns + 1)
    latest = max((int(one.t_ns[-1]) for one in found if len(one.t_ns)), default=from_ns)
    series = [
        {
            "name": one.name, "unit": one.unit, "labels": " ".join(map(str, one.labels.values())),
            "x": np.round((one.t_ns - start_ns) / NS_PER_S, 3), "y": one.value,
        }
        for one in found
        if len(one.t_ns)
    ]  # fmt: skip
    return {"samples": series, "sampled": latest}
