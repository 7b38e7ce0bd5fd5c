"""Was the server warm when the measurement began? Some go cold again while nobody asks them."""

from __future__ import annotations

from collections.abc import Mapping

from redline.analyse.case import Case, Rule, Said

_COLD = 1.5
_COLD_MS = 5.0


def idle_before(case: Case) -> Said:
    """The server had been idle between two load points for longer than `--warmup-again` (120 s). Where it was warmed up
    until it settled, what it had lost is said and moves nothing; where it did not settle, the point is degraded. A
    fixed warm-up cannot tell, which is worth a word.
    """
    told = case.outcome.get("warmup")
    if not isinstance(told, Mapping) or not told.get("idled"):
        return None
    idle = f"the server had been idle for {told['idle_s']:,.0f} s before this point"
    if told.get("mode") != "stable":
        return "valid", f"{idle}, and a fixed warm-up does not show whether it had gone cold (--warmup stable does)"
    if not told.get("settled"):
        return "degraded", f"{idle}, and did not settle again in a warm-up of {told['seconds']:.0f} s (--warmup-time)"
    first, usual = told.get("first_ttft_ms") or 0.0, told.get("settled_ttft_ms") or 0.0
    if first > _COLD * usual and first - usual > _COLD_MS:
        return "valid", (
            f"{idle} and had gone cold: its first answer was {first / usual:.1f} times as slow as after "
            f"{told['requests']} requests; it was warmed up again"
        )
    return None


RULES: tuple[Rule, ...] = (idle_before,)
