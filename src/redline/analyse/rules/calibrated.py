"""What the calibration says: how far off this client is under this load, and how much it can take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from redline.analyse.case import Case, Rule, Said

OFF_DEGRADED, OFF_BOUND = 0.05, 0.15
FULL = 0.8


def own_error(case: Case) -> Said:
    """The client's own p99 error on a known server: 5 % of the true value is worth a word, 15 % is no measurement."""
    known = _known(case)
    first = "TTFT" if known.get("streamed", True) else "E2E"
    worst, name = max(
        (abs(_number(known, key)), name) for key, name in (("ttft_p99_off", first), ("itl_p99_off", "ITL"))
    )
    if not worst > OFF_DEGRADED:
        return None
    state = "client-bound" if worst > OFF_BOUND else "degraded"
    return state, f"on a server that knows the truth, this client's {name} p99 was off by {worst:.0%} under this load"


def not_calibrated(case: Case) -> Said:
    """Nobody knows how far off this client is. A calibration that failed makes the point degraded. One that was turned
    off, or too short to finish a request, is said beside the verdict and does not move it: what the client says of its
    own lags, CPU and stamps is judged all the same.
    """
    known = case.outcome.get("calibration")
    if not isinstance(known, Mapping):
        return None
    unknown = "the client's own error is not known"
    if known.get("failed"):
        return "degraded", f"{unknown}: its calibration failed ({known['failed']})"
    if not known or known.get("off"):
        return "valid", f"{unknown}: not calibrated (--calibrate 2 does it)"
    if "requests" in known and not known["requests"]:
        return "valid", f"{unknown}: no request finished while it was calibrated (--calibrate N takes longer)"
    return None


def near_its_limit(case: Case) -> Said:
    """More than four fifths of the chunk rate that one core of this client takes."""
    known = _known(case)
    limit, rate = _number(known, "sustains_chunks_per_s"), case.number("chunks_per_s")
    workers = max(case.number("workers"), 1.0) if not math.isnan(case.number("workers")) else 1.0
    if not limit > 0 or not rate > FULL * limit * workers:
        return None
    return "client-bound", f"{rate:,.0f} chunks/s arrived, and this client takes about {limit * workers:,.0f}"


def _known(case: Case) -> Mapping[str, Any]:
    found = case.outcome.get("calibration")
    return found if isinstance(found, Mapping) else {}


def _number(known: Mapping[str, Any], key: str) -> float:
    """0 when it is not known: then there is nothing to say."""
    value = known.get(key)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


RULES: tuple[Rule, ...] = (own_error, not_calibrated, near_its_limit)
