"""Does the server work for anybody who no longer waits for the answer?

It shows in its own count of requests: what runs and waits there beyond what this client has in flight. A gauge alone
may be stale (engines that are idle write none), so outside of the measurement its tokens have to move as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from redline.analyse.case import Case, Rule, Said
from redline.analyse.window import in_flight
from redline.units import NS_PER_MS

_AROUND_NS = 250 * NS_PER_MS
"""How far the server's count and ours may be apart in time."""
_LOOKS = 4


def goes_on_for_the_gone(case: Case) -> Said:
    """Clients hung up, or were cut off when the point ended, and the server goes on generating for them: more runs
    there than we have in flight, or still runs and makes tokens seconds after the last of ours was over. Those who
    wait pay for it, and so does the next load point.
    """
    gone = int((~case.requests.warmup & np.isin(case.requests.status, ("abandoned", "cancelled"))).sum())
    if not gone:
        return None
    beyond, looks = _beyond(case)
    if beyond >= 1:
        return "degraded", (
            f"the server goes on for clients that are gone: {beyond:.0f} requests more in it than we had in flight "
            f"(median of {looks} looks at its metrics), while {gone} of ours had been given up"
        )
    left = _rest(case, "left")
    if not _works(left):
        return None
    return "degraded", (
        f"the server goes on for clients that are gone: {left['seconds']:.1f} s after the last of ours was over, "
        f"{gone} of them unanswered, {left['running']:.0f} still ran and it made {left['tokens']:.0f} tokens more"
    )


def busy_before(case: Case) -> Said:
    """Nothing of ours was in flight, and the server worked: for somebody else, or for clients that are gone."""
    found = _rest(case, "found")
    if not _works(found):
        return None
    return "degraded", (
        f"the server was at work before the first request of the point: {found['running']:.0f} ran in it, after "
        f"{found['seconds']:.1f} s of waiting for it to be idle"
    )


RULES: tuple[Rule, ...] = (goes_on_for_the_gone, busy_before)


def _server(case: Case) -> Mapping[str, Any]:
    told = case.outcome.get("server")
    return told if isinstance(told, Mapping) else {}


def _rest(case: Case, when: str) -> dict[str, float]:
    told = _server(case).get(when) or {}
    return {name: float(value) for name, value in told.items() if value is not None}


def _works(rest: Mapping[str, float]) -> bool:
    return rest.get("running", 0.0) > 0 and rest.get("tokens", 0.0) > 0


def _beyond(case: Case) -> tuple[float, int]:
    """How many more requests the server has than we, over the looks at its metrics while it was measured: the median,
    and how many looks. Of ours the most that were in flight around each look count."""
    looks = [look for look in _server(case).get("flights") or () if look[1] < case.ended_ns]
    if len(looks) < _LOOKS:
        return 0.0, len(looks)
    steps = in_flight(case.requests, case.ended_ns)
    beyond = []
    for begin, end, flight in looks:
        first = max(int(np.searchsorted(steps.t_ns, begin - _AROUND_NS, "right")) - 1, 0)
        ours = steps.level[first : int(np.searchsorted(steps.t_ns, end + _AROUND_NS))]
        beyond.append(flight - (int(ours.max()) if len(ours) else 0))
    return float(np.median(beyond)), len(looks)
