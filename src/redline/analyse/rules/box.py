"""Did the box stay as it was? A clock that was held down or a stranger on our cores changes what was measured."""

from __future__ import annotations

import math
from typing import Any

from redline.analyse.case import Case, Rule, Said

SWAPPED_PAGES = 256  # a megabyte
STEAL_CORES = 0.05
OTHERS_SHARE, OTHERS_CORES = 0.1, 0.25
QUOTA_S = 0.1


def governor(case: Case) -> Said:
    """Any governor but `performance` lets clocks fall between requests: the client and the engine's host side wait."""
    box = _box(case)
    found = [name for name in box.get("governors") or () if name != "performance"]
    if box.get("governor_changed"):
        return "degraded", f"the CPU governor changed while measuring: {', '.join(box.get('governors') or ())}"
    if not found:
        return None
    return "degraded", f"the CPU governor is {', '.join(found)}, not performance: clocks fall while requests wait"


def heat(case: Case) -> Said:
    """A CPU or a GPU that was slowed by heat, power or hardware ran at another speed than its own."""
    if _number(case, "heat_events") > 0:
        return "degraded", f"CPUs were slowed down by heat {_number(case, 'heat_events'):.0f} times while measuring"
    if _number(case, "gpu_slowed") > 0:
        return "degraded", "a GPU's clock was held down by power, heat or hardware while measuring"
    return None


def swap(case: Case) -> Said:
    """More than a megabyte to or from swap: somebody waited for a disk."""
    pages = _number(case, "swapped_pages")
    if not pages > SWAPPED_PAGES:
        return None
    return "degraded", f"{pages:,.0f} pages went to or came from swap while measuring"


def quota(case: Case) -> Said:
    """The container's CPU quota stopped us for more than a tenth of a second."""
    stopped = _number(case, "quota_throttled_s")
    if not stopped > QUOTA_S:
        return None
    return "degraded", f"the CPU quota stopped this container for {stopped:.1f} s while measuring"


def steal(case: Case) -> Said:
    """The hypervisor gave more than a twentieth of a core to others."""
    stolen = _number(case, "steal_cores")
    if not stolen > STEAL_CORES:
        return None
    return "degraded", f"the hypervisor took {stolen:.2f} cores away while measuring"


def others(case: Case) -> Said:
    """A co-tenant: processes that are neither the engine's nor redline's used a tenth of the cores, a quarter of one at
    least."""
    used, cores = _number(case, "others_cores"), _number(case, "cores")
    if not used > max(OTHERS_CORES, OTHERS_SHARE * cores):
        return None
    return "degraded", f"other processes used {used:.1f} of {cores:.0f} cores while measuring"


def _box(case: Case) -> dict[str, Any]:
    found = case.outcome.get("box")
    return found if isinstance(found, dict) else {}


def _number(case: Case, key: str) -> float:
    """0 when the box does not tell."""
    value = _box(case).get(key)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


RULES: tuple[Rule, ...] = (governor, heat, swap, quota, steal, others)
