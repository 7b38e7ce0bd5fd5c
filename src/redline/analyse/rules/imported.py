"""Was it redline that measured?"""

from __future__ import annotations

from redline.analyse.case import Case, Rule, Said


def imported(case: Case) -> Said:
    """Another tool measured it: its client's own error is unknown, so the point is never better than degraded."""
    found = case.outcome.get("imported")
    if not isinstance(found, dict):
        return None
    return (
        "degraded",
        f"imported: measured by {found.get('tool')} {found.get('version')}, the client's error is unknown",
    )


RULES: tuple[Rule, ...] = (imported,)
