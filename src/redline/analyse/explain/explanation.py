"""The explanation as a whole: shares of slow requests, stalls, and causes with what each of them explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from redline.analyse.explain.causes import BY_KEY, Cause, Event, Measured, Shown, shown
from redline.analyse.explain.grid import Floats, Grid
from redline.analyse.explain.score import ALWAYS, Score, attributable, benjamini_hochberg, score
from redline.analyse.explain.shares import EngineMeans, EngineTimes, Shares, shares_of, slow_rows
from redline.analyse.explain.stalls import Stall, gaps_of, lost_time, stalls_of
from redline.store.requests import Bools, Requests

FALSE_DISCOVERIES = 0.05
LIFT_MIN = 1.5
EXPLAINS_MIN = 0.02
"""Share of the lost time below which a cause is not worth a name."""
NEAR = 0.8
"""Of causes that explain at least so much of what the best one explains, the nearest to the engine is named."""
BLAMED, COINCIDENCE, ALWAYS_ON, NEVER_ON = "blamed", "not more than chance", "always at work", "never at work"


@dataclass(frozen=True)
class Blame:
    """One cause. `explains` is the share of the lost time that is put down to it after those named before it."""

    cause: Cause
    verdict: str
    score: Score
    explains: float
    source: str
    who: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Explanation:
    """`lost_share` is the share of all streaming time beyond the expected step; `unexplained` the share of that which
    no blamed cause accounts for. `slow` marks the rows of `shares` that are slow for their length."""

    grid: Grid
    lost: Floats
    lost_share: float
    lost_s: float
    shares: Shares
    slow: Bools
    stalls: tuple[Stall, ...]
    blames: tuple[Blame, ...]
    unexplained: float
    shown: tuple[Shown, ...]
    expected_ms: float

    @property
    def blamed(self) -> tuple[Blame, ...]:
        """Those that are named, the one that explains most first."""
        return tuple(one for one in self.blames if one.verdict == BLAMED)


def explain_requests(
    requests: Requests,
    window: tuple[int, int],
    *,
    series: Sequence[Measured] = (),
    events: Sequence[Event] = (),
    traced: frozenset[str] = frozenset(),
    engine: Mapping[int, EngineTimes] | None = None,
    means: EngineMeans | None = None,
    lag_ns: float = 0.0,
) -> Explanation:
    """Of measured requests that were sent and ended, in `window` ns."""
    gaps = gaps_of(requests)
    stalls = stalls_of(gaps, requests)
    grid = Grid.over(*window)
    lost = lost_time(gaps, requests, grid)
    shares = shares_of(requests, gaps, stalls, engine=engine, means=means, lag_ns=lag_ns)
    found = shown(grid, series, [*events, *_prefills(requests, engine or {}, shares)], traced | {"prefill"})
    blames, unexplained = blame(lost, found)
    streamed = float((gaps.ended_ns - gaps.began_ns).sum())
    excess = float(gaps.excess_ns.sum())
    return Explanation(
        grid, lost, excess / streamed if streamed else 0.0, excess / 1e9, shares, slow_rows(requests, shares),
        tuple(stalls), tuple(blames), unexplained, tuple(found),
        float(np.median(gaps.expected_ns)) / 1e6 if len(gaps.expected_ns) else float("nan"),
    )  # fmt: skip


def blame(lost: Floats, found: Sequence[Shown]) -> tuple[list[Blame], float]:
    """Every cause with its verdict, the blamed ones first, and the share of lost time that stays unexplained."""
    scores = [score(lost, one.active) for one in found]
    qs = benjamini_hochberg([one.p for one in scores])
    scores = [replace(one, q=q) for one, q in zip(scores, qs, strict=True)]
    guilty = [
        place
        for place, one in enumerate(scores)
        if one.q <= FALSE_DISCOVERIES and one.lift >= LIFT_MIN and one.attributable >= EXPLAINS_MIN
    ]
    explained, unexplained = _dealt(lost, found, guilty)
    blames = [
        Blame(one.cause, _verdict(scores[i], i in explained), scores[i], explained.get(i, 0.0), one.source, one.who)
        for i, one in enumerate(found)
    ]
    order = {BLAMED: 0, COINCIDENCE: 1, ALWAYS_ON: 2, NEVER_ON: 3}
    blames.sort(key=lambda one: (order[one.verdict], -one.explains, -one.score.attributable))
    return blames, unexplained


def _dealt(lost: Floats, found: Sequence[Shown], guilty: Sequence[int]) -> tuple[dict[int, float], float]:
    """Lost time dealt out: the cause that explains most takes its part, the next one of what is left, and so on."""
    total = float(lost.sum())
    left, waiting, explained = lost.copy(), list(guilty), dict[int, float]()
    while waiting and total > 0:
        part = {place: attributable(left, found[place].active) for place in waiting}
        best = max(part.values())
        if best < EXPLAINS_MIN * total:
            break
        near = [place for place in waiting if part[place] >= NEAR * best]
        chosen = min(near, key=lambda place: (found[place].cause.rank, -part[place]))
        active = found[chosen].active
        left[active] = np.minimum(left[active], left[~active].mean())
        explained[chosen] = (total - sum(explained.values()) * total - float(left.sum())) / total
        waiting.remove(chosen)
    return explained, 1.0 - sum(explained.values()) if total > 0 else 0.0


def _verdict(found: Score, blamed: bool) -> str:
    if blamed:
        return BLAMED
    if found.duty == 0:
        return NEVER_ON
    return ALWAYS_ON if found.duty > ALWAYS else COINCIDENCE


def _prefills(requests: Requests, engine: Mapping[int, EngineTimes], shares: Shares) -> list[Event]:
    """When the prompt of each request was computed: by its span, else in the last part of its wait."""
    found = []
    first, prefill = requests.earliest_ns, shares.parts["prefill"]
    for row, index in enumerate(requests.index.tolist()):
        told = engine.get(index)
        if told is not None:
            began = told.arrived_ns + told.queue_ns
            found.append(Event("prefill", began, began + told.prefill_ns))
        elif first[row] > 0:
            found.append(Event("prefill", int(first[row] - prefill[row]), int(first[row])))
    return found


__all__ = ["BY_KEY", "Blame", "Explanation", "blame", "explain_requests"]
