"""Which load to measure next, and what the loads measured so far say: the knee, or the most load that keeps the SLO.

Everything here is a function of what was measured, so a search that was cut off goes on from the results file.

The knee is the load at which throughput stops following the load: where 1 % more load brings only half a percent more
tokens. It is read off a curve with three parameters, T(x) = s·x / (1 + (x/k)^p)^(1/p): proportional to the load far
below k and flat far above it, as sharp as p says. Its elasticity is 1 / (1 + (x/k)^p), which is one half at x = k for
every p. p = 1 is a server whose step time grows linearly with its batch (k is then where the two asymptotes of
operational analysis cross, Denning & Buzen 1978); a large p is a hard limit on requests at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from redline.analyse.bootstrap import interval
from redline.analyse.finding import Interval
from redline.analyse.percentile import Floats
from redline.analyse.slo import promised_share, wilson
from redline.analyse.summary import PointSummary
from redline.store.requests import Ints

FEWEST_FOR_A_FIT = 4
_SHARPNESS = np.geomspace(0.7, 24.0, 24)
_KNEES = 120
_SATURATED = 0.5
MOST_REPEATS = 3
"""How often a load is measured whose attainment cannot be told from the promise."""


@dataclass(frozen=True)
class Seen:
    """One measured load point. `load` in clients or requests per second; `draws` are replicates of `tokens_per_s`.

    `hits` of `counted` requests kept the SLO. `growing`: the backlog grew from end to end, so the server was offered
    more than it can do.
    """

    load: float
    tokens_per_s: float
    draws: Floats = field(default_factory=lambda: np.empty(0), compare=False)
    hits: int = 0
    counted: int = 0
    goodput_per_s: float = math.nan
    state: str = "valid"
    growing: bool = False

    @property
    def usable(self) -> bool:
        return self.state in ("valid", "degraded") and self.tokens_per_s > 0


def seen_of(load: float, summary: PointSummary) -> Seen:
    """What a search needs to know of a load point."""
    rate, share = summary.value("output_tokens_per_s"), summary.value("slo_attainment")
    counted = summary.counts.get("counted", 0)
    return Seen(
        load=load,
        tokens_per_s=0.0 if math.isnan(rate) else rate,
        draws=summary.draws.get("output_tokens_per_s", np.empty(0)),
        hits=0 if math.isnan(share) else round(share * counted),
        counted=counted,
        goodput_per_s=summary.value("goodput_per_s"),
        state=summary.verdict.state,
        growing=summary.window.growing,
    )


@dataclass(frozen=True)
class Knee:
    """Where throughput stops following the load, and the throughput of the plateau (tokens per second)."""

    load: float
    interval: Interval | None
    plateau: float
    sharpness: float


@dataclass(frozen=True)
class Step:
    """Measure this load next."""

    load: float
    why: str


@dataclass(frozen=True)
class Stop:
    why: str


Decision = Step | Stop


@dataclass(frozen=True)
class Bounds:
    """Where to look. `whole`: loads are numbers of clients. `high` 0: as far as it takes. `precision` is the relative
    width at which the answer is good enough."""

    low: float
    high: float = 0.0
    whole: bool = True
    precision: float = 0.1

    def fit(self, load: float) -> float:
        """The nearest load that can be asked for."""
        top = self.high or math.inf
        value = min(max(load, self.floor), top)
        return float(round(value)) if self.whole else float(f"{value:.4g}")

    @property
    def floor(self) -> float:
        return 1.0 if self.whole else self.low / 64


def fit_knee(seen: Sequence[Seen]) -> Knee | None:
    """The knee of the loads measured; None when they do not reach it or are too few.

    Least squares of log throughput over a grid of k and p; the interval repeats it on the replicates of every point.
    """
    points = _by_load(seen)
    if len(points) < FEWEST_FOR_A_FIT:
        return None
    loads = np.array([point.load for point in points])
    rates = np.maximum.accumulate([point.tokens_per_s for point in points])  # thrashing beyond the knee is no knee
    grid = np.geomspace(loads[0], loads[-1], _KNEES)
    shapes = _shapes(loads, grid)
    best, scale = _least_squares(shapes, np.log(rates)[None, :])
    knee, sharpness = float(grid[best[0] // len(_SHARPNESS)]), float(_SHARPNESS[best[0] % len(_SHARPNESS)])
    if knee >= loads[-1] * 0.99:
        return None
    draws = _rate_draws(points)
    band = None
    if draws is not None:
        chosen, _ = _least_squares(shapes, np.log(np.maximum.accumulate(draws, axis=1)))
        band = interval(grid[chosen // len(_SHARPNESS)])
    return Knee(knee, band, float(np.exp(scale[0]) * knee), sharpness)


def _by_load(seen: Sequence[Seen]) -> list[Seen]:
    """Usable points, rising; of several at one load the last."""
    return [point for _, point in sorted({one.load: one for one in seen if one.usable}.items())]


def _shapes(loads: Floats, grid: Floats) -> Floats:
    """[knees × sharpnesses, loads]: log T(x) for s = 1."""
    k = np.repeat(grid, len(_SHARPNESS))[:, None]
    p = np.tile(_SHARPNESS, len(grid))[:, None]
    return np.asarray(np.log(loads)[None, :] - np.logaddexp(0.0, p * np.log(loads[None, :] / k)) / p, np.float64)


def _least_squares(shapes: Floats, rows: Floats) -> tuple[Ints, Floats]:
    """For each row of log rates: the best shape and its log scale, which is the mean residual."""
    flat = shapes - shapes.mean(axis=1, keepdims=True)
    centred = rows - rows.mean(axis=1, keepdims=True)
    # |r − s|² less |r|², which is the same for every shape
    best = ((flat**2).sum(axis=1)[None, :] - 2 * centred @ flat.T).argmin(axis=1)
    return best, (rows - shapes[best]).mean(axis=1)


def _rate_draws(points: Sequence[Seen], most: int = 300) -> Floats | None:
    """[replicates, loads]; None when a point has none."""
    count = min((len(point.draws) for point in points), default=0)
    if count == 0:
        return None
    columns = [np.maximum(point.draws[: min(count, most)], 1e-9) for point in points]
    return np.column_stack(columns)


def elasticity(below: Seen, above: Seen) -> float:
    """Relative gain in throughput per relative gain in load, between two points."""
    return math.log(above.tokens_per_s / below.tokens_per_s) / math.log(above.load / below.load)


def next_for_knee(seen: Sequence[Seen], bounds: Bounds) -> Decision:
    """Double until throughput stops following, then close in on the knee."""
    if not seen:
        return Step(bounds.fit(bounds.low), "the lowest load")
    if (limit := _limit(seen)) is not None:
        return limit
    points = _by_load(seen)
    top = points[-1]
    if not _saturated(points):
        wider = bounds.fit(2 * top.load)
        if wider > top.load:
            return Step(wider, "throughput still follows the load")
        return Stop(f"throughput still follows the load at {top.load:g}, the highest load allowed")
    knee = fit_knee(points)
    centre = knee.load if knee else points[-2].load
    if knee is not None and knee.interval is not None and _width(knee.interval) <= bounds.precision:
        return Stop(f"the knee is known to within {bounds.precision:.0%}")
    between = _gap_around(points, centre, bounds)
    if between is not None:
        return Step(between, "closing in on the knee")
    return Stop("the loads around the knee are as close as asked for")


def _saturated(points: Sequence[Seen]) -> bool:
    """The last doubling clearly brought less than half of what it asked for; the backlog growing says it at once."""
    if len(points) < 2:
        return False
    if points[-1].growing:
        return True
    return elasticity(points[-2], points[-1]) < _SATURATED and (
        len(points) > 2 and points[-1].tokens_per_s < 1.5 * points[-2].tokens_per_s
    )


def _gap_around(points: Sequence[Seen], centre: float, bounds: Bounds) -> float | None:
    """The middle (on a logarithmic scale) of the widest gap next to `centre` that is wider than the precision."""
    loads = [point.load for point in points]
    at = int(np.searchsorted(loads, centre))
    edges = loads[max(at - 2, 0) : at + 2]
    gaps = [(b / a, a, b) for a, b in pairwise(edges)]
    # the gap that holds the centre first, its neighbours only while they are more than twice as wide
    gaps.sort(key=lambda gap: (-(gap[0] if gap[1] <= centre <= gap[2] else gap[0] ** 0.5), gap[1]))
    for ratio, low, high in gaps:
        middle = bounds.fit(math.sqrt(low * high))
        if ratio > 1 + bounds.precision and low < middle < high:
            return middle
    return None


def _width(band: Interval) -> float:
    return band.high / band.low - 1 if band.low > 0 else math.inf


def _limit(seen: Sequence[Seen]) -> Decision | None:
    """A point that says nothing about the server is measured once more, then it ends the search: higher loads would
    say less."""
    last = seen[-1]
    if last.usable:
        return None
    if sum(one.load == last.load for one in seen) < 2:
        return Step(last.load, f"once more, because it came out {last.state}")
    if last.state == "client-bound":
        return Stop(f"at {last.load:g} it is the load generator that is measured, not the server")
    return Stop(f"the point at {last.load:g} is {last.state}")


@dataclass(frozen=True)
class Kept:
    """How one load keeps the promise, over all measurements of it. `verdict`: pass, fail or unsure."""

    load: float
    share: float
    band: Interval | None
    verdict: str
    times: int
    goodput_per_s: float


def kept(seen: Sequence[Seen], attainment: float) -> list[Kept]:
    """By rising load. Sure only when the Wilson interval of the share lies on one side of the promise; measured
    `MOST_REPEATS` times and still unsure, the share itself decides."""
    found: dict[float, list[Seen]] = {}
    for one in seen:
        found.setdefault(one.load, []).append(one)
    rows = []
    for load, measured in sorted(found.items()):
        # a load that was measured once more because it was the load generator that was measured
        group = [one for one in measured if one.state != "client-bound"] or measured
        hits, counted = sum(one.hits for one in group), sum(one.counted for one in group)
        share, band = (hits / counted if counted else 0.0), wilson(hits, counted)
        verdict = "unsure"
        if band is None or group[-1].state == "invalid" or group[-1].growing or band.high < attainment:
            verdict = "fail"
        elif band.low >= attainment:
            verdict = "pass"
        elif len(group) >= MOST_REPEATS:
            verdict = "pass" if share >= attainment else "fail"
        goodput = float(np.mean([one.goodput_per_s for one in group]))
        rows.append(Kept(load, share, band, verdict, len(group), goodput))
    return rows


def next_for_slo(seen: Sequence[Seen], bounds: Bounds, attainment: float) -> Decision:
    """Double until the promise breaks, then halve the distance between what keeps it and what does not."""
    if not seen:
        return Step(bounds.fit(bounds.low), "the lowest load")
    if seen[-1].state == "client-bound" and (limit := _limit(seen)) is not None:
        return limit
    rows = kept(seen, attainment)
    unsure = [row for row in rows if row.verdict == "unsure"]
    passed, failed = edge(rows)
    # only where it matters: below a load that passes and above one that fails nothing is in doubt
    unsure = [row for row in unsure if (passed is None or row.load > passed) and (failed is None or row.load < failed)]
    if unsure:
        row = unsure[0]
        return Step(
            row.load, f"{row.share:.1%} of the requests cannot be told from {promised_share(attainment)}: once more"
        )
    if failed is None:
        assert passed is not None
        wider = bounds.fit(2 * passed)
        if wider > passed:
            return Step(wider, "the promise is kept")
        return Stop(f"the promise is still kept at {passed:g}, the highest load allowed")
    if passed is None:
        lower = bounds.fit(failed / 2)
        if lower < failed:
            return Step(lower, "the promise is not kept")
        return Stop(f"the promise is not kept even at {failed:g}")
    middle = bounds.fit(math.sqrt(passed * failed))
    if failed / passed <= 1 + bounds.precision or not passed < middle < failed:
        return Stop(f"kept at {passed:g}, broken at {failed:g}: as close as asked for")
    return Step(middle, f"kept at {passed:g}, broken at {failed:g}")


def edge(rows: Sequence[Kept]) -> tuple[float | None, float | None]:
    """The lowest load that breaks the promise, and the highest below it that keeps it."""
    failed = next((row.load for row in rows if row.verdict == "fail"), None)
    good = [row.load for row in rows if row.verdict == "pass" and (failed is None or row.load < failed)]
    return (good[-1] if good else None), failed
