"""Which load point comes next: the listed ones in order, or those that a search asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from redline.analyse.search import Bounds, Decision, Seen, Step, Stop, next_for_knee, next_for_slo, seen_of
from redline.analyse.summary import PointSummary
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint


class Plan(Protocol):
    """What one engine with one model still has to go through. Survives a restart of the engine."""

    def next(self) -> tuple[int, LoadPoint] | None:
        """The number of the point within the plan (its prompts follow from it) and the point; None: all done.
        Asked again before `took`, it gives the same point."""
        ...

    def took(self, point: LoadPoint, summary: PointSummary, stopped_by: str, seconds: float) -> dict[str, Any]:
        """Told after every point; what comes back is kept with the point."""
        ...


class Listed:
    """The experiment's own points, less those that an earlier part of the run has measured already."""

    def __init__(self, points: Iterable[LoadPoint], done: Iterable[LoadPoint] = ()) -> None:
        measured = set(done)
        self._left = [(index, point) for index, point in enumerate(points) if point not in measured]

    def next(self) -> tuple[int, LoadPoint] | None:
        return self._left[0] if self._left else None

    def took(self, point: LoadPoint, summary: PointSummary, stopped_by: str, seconds: float) -> dict[str, Any]:
        del self._left[0]  # also when the engine died under it: it would die again
        return {}


class Searched:
    """Points that are decided one after the other. `seen` are those of an earlier part of the same run."""

    def __init__(
        self,
        experiment: Experiment,
        seen: Iterable[Seen] = (),
        *,
        spent_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        search = experiment.search
        self._goal, self._attainment = search.goal, experiment.slo.attainment
        self._kind = "closed" if search.over == "concurrency" else experiment.load.arrivals
        self._bounds = Bounds(search.low, search.high, search.over == "concurrency", search.precision)
        self._budget_s = search.budget_s
        self._clock, self._began = clock, clock() - spent_s
        self._longest_s = 0.0
        self.seen = list(seen)
        self._decision = self._decide()

    def next(self) -> tuple[int, LoadPoint] | None:
        if isinstance(self._decision, Stop):
            return None
        return len(self.seen), LoadPoint(self._kind, self._decision.load)

    def took(self, point: LoadPoint, summary: PointSummary, stopped_by: str, seconds: float) -> dict[str, Any]:
        why = self._decision.why
        if stopped_by == "interrupted":
            return {"search": {"why": why, "next": point.value, "stop": ""}}
        self.seen.append(seen_of(point.value, summary))
        self._longest_s = max(self._longest_s, seconds)
        self._decision = self._decide()
        stop = self._decision.why if isinstance(self._decision, Stop) else ""
        after = self._decision.load if isinstance(self._decision, Step) else None
        return {"search": {"why": why, "next": after, "stop": stop, "seconds": seconds}}

    def _decide(self) -> Decision:
        if self._goal == "slo":
            decision = next_for_slo(self.seen, self._bounds, self._attainment)
        else:
            decision = next_for_knee(self.seen, self._bounds)
        spent = self._clock() - self._began
        # a point that would end after the time is not begun
        if isinstance(decision, Step) and self.seen and spent + self._longest_s > self._budget_s:
            return Stop(f"the time budget of {self._budget_s:g} s is used up; next would have been {decision.load:g}")
        return decision


def plan_of(experiment: Experiment) -> Plan:
    """For one engine with one model, from the beginning."""
    return Listed(experiment.load.points) if experiment.search.goal == "off" else Searched(experiment)
