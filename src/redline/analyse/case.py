"""What the rules of the verdict look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from redline.analyse.latency import Latencies
from redline.analyse.window import SteadyWindow
from redline.store.requests import Requests

STATES = ("valid", "degraded", "client-bound", "invalid")

Said = tuple[str, str] | None
"""A state of `STATES` and the reason for it; None when there is nothing to say."""


@dataclass(frozen=True)
class Case:
    """What the rules look at. `asked` is the kind and value of the load point, `exact_output` whether every answer
    was to be exactly as long as asked; `outcome` is what the load generator said about itself, any key may lack."""

    requests: Requests
    latencies: Latencies
    window: SteadyWindow
    ended_ns: int
    outcome: Mapping[str, Any]
    in_flight: float = math.nan
    sent_per_s: float = math.nan
    asked: tuple[str, float] | None = None
    exact_output: bool = True

    @cached_property
    def good(self) -> Requests:
        """The measured requests that succeeded."""
        return self.requests.pick(self.latencies.row[~self.latencies.failed])

    @property
    def cut_off(self) -> int:
        return int((~self.requests.warmup & (self.requests.status == "cancelled")).sum())

    def number(self, key: str) -> float:
        """A number of the outcome; NaN when it lacks."""
        value = self.outcome.get(key)
        return float(value) if isinstance(value, (int, float)) else math.nan


Rule = Callable[[Case], Said]
