"""What crosses from `analyse` to `report` and `tune`: a number with its unit, its interval and its definition."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Interval:
    """Confidence interval, bounds included. `level` 0.95 is 95 %."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class Finding:
    """One number. `definition` names the entry in `units.DEFINITIONS`, e.g. `ttft_ms/intended@1`.

    `value` is NaN when it cannot be had; `note` then says why. +inf is a real value: a percentile that a failed
    request occupies.
    """

    name: str
    value: float
    unit: str
    definition: str = ""
    interval: Interval | None = None
    ceiling: float | None = None
    runs: tuple[str, ...] = ()
    note: str = ""
    of: int = 0
    """How many values a percentile was taken of; 0 for other numbers."""


@dataclass(frozen=True)
class Verdict:
    """May the numbers of a load point be believed? `state` is valid, degraded, client-bound or invalid.

    `levels` holds, where known, the state that each of the reasons alone would bring.
    """

    state: str = "valid"
    reasons: tuple[str, ...] = field(default_factory=tuple)
    levels: tuple[str, ...] = field(default_factory=tuple)
