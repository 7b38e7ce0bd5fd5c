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
NEWEST = 500


def live_state(desk: Desk, request: Request) -> Response:
    query = request.query_params
    asked, sampled = query.get("after", ""), _whole(query.get("sampled", "0"))
    with desk.open() as reader, reader.snapshot():
        row = reader.run(request.path_params["run"])
        going_on, steps = row.status == "running", reader.steps(row.id)
        current = next((step for step in reversed(steps) if step["point"] is not None), None)
        point: dict[str, Any] | None = None
        buckets: list[dict[str, Any]] = []
        newest: list[tuple[int, ...]] = []
        after = ""
        if current is not None:
            known, last, whole = ([_whole(part) for part in asked.split(".")] + [0, 0, 0])[:3]
            last, whole = (last, whole) if known == current["point"] else (0, 0)
            rows = reader.newest_requests(current["point"], last)
            buckets, fresh, whole = seconds(rows, current["started_ns"], whole)
            after = f"{current['point']}.{max(fresh, last)}.{whole}"
            newest = reader.newest_requests(current["point"], most=NEWEST)
            point = _point(current, reader.points_counts(row.id)[current["point"]], going_on)
        sampled_now = live_samples(reader, row.id, sampled or now_ns() - SAMPLED_S * NS_PER_S, row.started_ns)
    return json_answer(
        {
            "going_on": going_on, "status": row.status, "verdict": row.verdict,
            "elapsed_s": (now_ns() - row.started_ns) / NS_PER_S if going_on else row.duration_s,
            "done": sum(step["ended_ns"] is not None and step["point"] is not None for step in steps),
            "points": sum(step["point"] is not None for step in steps), "point": point, "step": _said(steps, point),
            "buckets": buckets, "after": after, "newest": newest_numbers(newest), **sampled_now,
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


def seconds(rows: Sequence[tuple[int, ...]], start_ns: int, whole: int) -> tuple[list[dict[str, Any]], int, int]:
    """Finished requests by the second of the load point in which they ended, from second `whole` on: of those before
    it `rows` may hold a part only. And (id, second) to go on from: seconds that may still grow come again, whole.
    """
    if not rows:
        return [], 0, whole
    table = np.array(rows, np.int64)
    ids, intended, first, finished, tokens, failed = (table[:, i] for i in (0, 1, 2, 4, 5, 7))
    second = np.where(finished > 0, (finished - start_ns) // BUCKET_NS, -1)
    now = min(now_ns(), int(finished.max()) + SETTLED_NS)
    settled = max(int((now - SETTLED_NS - start_ns) // BUCKET_NS), whole)
    newest = int(second.max())
    found = []
    for one in range(max(newest - MOST_SECONDS, whole), newest + 1):
        mine = second == one
        waits = (first - intended)[mine & (failed == 0) & (first > 0)] / NS_PER_MS
        found.append(
            {
                "s": one, "open": start_ns + (one + 1) * BUCKET_NS > now,
                "finished": int(mine.sum()), "failed": int(failed[mine].sum()), "tokens": int(tokens[mine].sum()),
                "ttft_p50": float(np.percentile(waits, 50)) if len(waits) else None,
                "ttft_max": float(waits.max()) if len(waits) else None,
            }
        )  # fmt: skip
    growing = ids[second >= settled]
    return found, int(growing.min()) - 1 if len(growing) else int(ids.max()), settled


def newest_numbers(rows: Sequence[tuple[int, ...]]) -> dict[str, str]:
    """Of the newest requests, as they would stand in a table."""
    table = np.array(rows, np.int64).reshape(-1, 9)
    good = table[(table[:, 7] == 0) & (table[:, 8] == 0) & (table[:, 2] > 0)]
    if not len(good):
        return {}
    ttft = (good[:, 2] - good[:, 1]) / NS_PER_MS
    many = good[good[:, 6] > 1]
    gaps = (many[:, 3] - many[:, 2]) / (many[:, 6] - 1) / NS_PER_MS if len(many) else np.array([np.nan])
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
