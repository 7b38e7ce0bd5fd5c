"""May the numbers of a load point be believed?

The state of a point is the worst that any rule says: `invalid` (the numbers mean nothing), `client-bound` (they
measure the load generator), `degraded` (they hold with the reservation given), else `valid`. The rules are in `rules/`.
"""

from __future__ import annotations

from redline.analyse.case import STATES, Case, Rule
from redline.analyse.finding import Verdict
from redline.analyse.rules import (
    asked,
    box,
    cache,
    calibrated,
    client,
    gone,
    imported,
    outcome,
    quality,
    tokens,
    traffic,
    warm,
)

__all__ = ["RULES", "STATES", "Case", "judge"]

RULES: tuple[Rule, ...] = (
    *outcome.RULES,
    *warm.RULES,
    *client.RULES,
    *calibrated.RULES,
    *asked.RULES,
    *traffic.RULES,
    *tokens.RULES,
    *cache.RULES,
    *gone.RULES,
    *box.RULES,
    *quality.RULES,
    *imported.RULES,
)


def judge(case: Case) -> Verdict:
    """The worst state, and every reason in the order of how bad it is."""
    said = [verdict for rule in RULES if (verdict := rule(case)) is not None]
    said.sort(key=lambda pair: -STATES.index(pair[0]))
    return Verdict(
        said[0][0] if said else "valid", tuple(reason for _, reason in said), tuple(level for level, _ in said)
    )
