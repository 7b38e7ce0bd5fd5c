"""The explanation as a whole: shares of slow requests, stalls, and causes with what each of them explains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from redline.analyse.explain.causes import BY_KEY, Cause, Event, Measured, Shown, shown
from redline.analyse.explain.grid import Floats, Grid
from redline.analyse.explain.score import Score, attributable, benjamini_hochberg, fit, score
from redline.analyse.explain.shares import EngineMeans, EngineTimes, Shares, shares_of, slow_rows
from redline.analyse.explain.stalls import Stall, gaps_of, lost_time, stalls_of
from redline.store.requests import Bools, Requests

FALSE_DISCOVERIES = 0.05
RATIO_MIN = 1.5
"""Loss while a cause is at work over the loss without it, below which it is no cause worth a name."""
EXPLAINS_MIN = 0.02
"""Share of the lost time below which a cause is not worth a name."""
NEAR, NEAR_KIN = 0.8, 0.25
"""Of causes that explain at least so much of what the best one explains (NEAR_KIN: of its own family), the nearest to
the engine is named: the box is short of CPUs because somebody is, and the question is whether the engine was."""
LOST_MIN = 0.02
"""Share of the streaming time that may be lost, where no request is slow, before anybody is blamed for it."""
OWN_MIN = 0.25
"""Of what a cause would explain alone, what must be left after others for it to be named too: what goes along with a
cause is not another one."""
BLAMED, COVERED, FAINT, COINCIDENCE, ALWAYS_ON, NEVER_ON = (
    *("blamed", "told by another", "too little", "no more than chance", "always at work", "never at work"),
)
"""COVERED: what it explains was explained by causes named before it. FAINT: no chance, and hardly any loss. ALWAYS_ON:
there is no time without it to compare with. FAINT, too, is whoever would be blamed in a run with nothing to explain."""


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
    lost_share, slow = excess / streamed if streamed else 0.0, slow_rows(requests, shares)
    if lost_share < LOST_MIN and not slow.any():
        named = (BLAMED, COVERED)
        blames = [replace(one, verdict=FAINT, explains=0.0) if one.verdict in named else one for one in blames]
        unexplained = 1.0
    return Explanation(
        grid, lost, lost_share, excess / 1e9, shares, slow,
        tuple(stalls), tuple(blames), unexplained, tuple(found),
        float(np.median(gaps.expected_ns)) / 1e6 if len(gaps.expected_ns) else float("nan"),
    )  # fmt: skip


def blame(lost: Floats, found: Sequence[Shown]) -> tuple[list[Blame], float]:
    """Every cause with its verdict, the blamed ones first, and the share of lost time that stays unexplained."""
    scores = [score(lost, one.level) for one in found]
    qs = benjamini_hochberg([one.p for one in scores])
    scores = [replace(one, q=q) for one, q in zip(scores, qs, strict=True)]
    guilty = [
        place
        for place, one in enumerate(scores)
        if one.q <= FALSE_DISCOVERIES and one.ratio >= RATIO_MIN and one.attributable >= EXPLAINS_MIN
    ]
    explained, unexplained = _dealt(lost, found, guilty)
    blames = [
        Blame(
            one.cause,
            _verdict(scores[i], i in explained, i in guilty),
            scores[i],
            explained.get(i, 0.0),
            one.source,
            one.who,
        )
        for i, one in enumerate(found)
    ]
    order = (BLAMED, COVERED, FAINT, COINCIDENCE, ALWAYS_ON, NEVER_ON)
    blames.sort(key=lambda one: (order.index(one.verdict), -one.explains, -one.score.attributable))
    return blames, unexplained


def _dealt(lost: Floats, found: Sequence[Shown], guilty: Sequence[int]) -> tuple[dict[int, float], float]:
    """Lost time dealt out: the cause that explains most takes its part, the next one of what is left, and so on."""
    total = float(lost.sum())
    alone = {place: attributable(lost, found[place].level) for place in guilty}
    left, waiting, explained = lost.copy(), list(guilty), dict[int, float]()
    while total > 0:
        part = {place: attributable(left, found[place].level) for place in waiting}
        waiting = [place for place in waiting if part[place] >= max(EXPLAINS_MIN * total, OWN_MIN * alone[place])]
        if not waiting:
            break
        best = max(waiting, key=lambda place: part[place])
        family = found[best].cause.family
        least = {place: NEAR_KIN if found[place].cause.family == family else NEAR for place in waiting}
        near = [place for place in waiting if part[place] >= least[place] * part[best]]
        chosen = min(near, key=lambda place: (found[place].cause.rank, -part[place]))
        _, more = fit(left, found[chosen].level)
        before = float(left.sum())
        left = np.maximum(left - more * found[chosen].level, 0.0)
        explained[chosen] = (before - float(left.sum())) / total
        waiting.remove(chosen)
    return explained, 1.0 - sum(explained.values()) if total > 0 else 0.0


def _verdict(found: Score, blamed: bool, guilty: bool) -> str:
    if blamed or guilty:
        return BLAMED if blamed else COVERED
    if found.q <= FALSE_DISCOVERIES:
        return FAINT
    if found.duty == 0:
        return NEVER_ON
    return ALWAYS_ON if math.isnan(found.p) else COINCIDENCE


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
