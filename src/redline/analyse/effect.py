"""How far B is from A, how sure that is, and the smallest change that this data could have shown.

Ratios are made on the logarithm, so that B/A and A/B are the same statement. Where the rounds say how far apart they
lie, their spread is the error: paired by round when both sides were measured in the same rounds (what drifts from round
to round then cancels), else the two-sample form with each side's own spread (Welch). Student's t pays for the small
number of rounds; of fewer than four it is never taken as smaller than what the block bootstrap finds inside them. With
one round on each side only the spread inside it is known; the effect then says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from redline.analyse.comparison import BETTER, CUT_MATTERS, UNKNOWN, WORSE
from redline.analyse.finding import Interval
from redline.analyse.percentile import enough_to_bound
from redline.analyse.rounds import Round, level_of
from redline.analyse.slo import wilson
from redline.analyse.student import satterthwaite, t_quantile, two_sided
from redline.units import DEFINITIONS

UNCHANGED = "no detectable change"
FEWEST_PAIRS, FEW = 3, 4
LEVEL, POWER = 0.95, 0.8
SHARES = ("failed_share", "slo_attainment")
DEFAULT_METRICS = (
    "output_tokens_per_s", "goodput_per_s", "ttft_ms.p50", "ttft_ms.p99", "itl_ms.p50", "itl_ms.p99", "e2e_ms.p50",
    "e2e_ms.p99", "failed_share", "slo_attainment",
)  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """B against A in one metric. `ratio` and its interval are B / A; shares have none, and `difference` counts.

    `detectable` is the smallest change found four times in five with data like this: a share of A's value for ratios
    (0.03 is 3 %), an absolute one for shares. `p` is for no change at all, `p_worse` for "worse by no more than the
    tolerance"; `Family` corrects both for how many were looked at. `method` says what the error is made of.
    """

    metric: str
    a: float
    b: float
    ratio: float = math.nan
    difference: float = math.nan
    interval: Interval | None = None
    difference_interval: Interval | None = None
    detectable: float = math.nan
    p: float = math.nan
    p_worse: float = math.nan
    outcome: str = UNKNOWN
    regression: bool = False
    note: str = ""
    method: str = ""
    rounds: tuple[int, int] = (0, 0)

    @property
    def known(self) -> bool:
        return not math.isnan(self.p)

    @property
    def is_share(self) -> bool:
        return self.metric in SHARES


@dataclass(frozen=True)
class _Error:
    """Difference of two means (B − A), its standard error and degrees of freedom."""

    value: float
    se: float
    df: float
    method: str

    def band(self) -> tuple[float, float]:
        half = t_quantile((1 + LEVEL) / 2, self.df) * self.se
        return self.value - half, self.value + half

    def detectable(self) -> float:
        return (t_quantile((1 + LEVEL) / 2, self.df) + t_quantile(POWER, self.df)) * self.se

    def p_beyond(self, limit: float = 0.0) -> float:
        """Two-sided p-value of the difference from `limit`."""
        if self.se == 0:
            return float(self.value == limit)
        return two_sided((self.value - limit) / self.se, self.df)


def lower_is_better(metric: str) -> bool:
    name = metric.partition(".")[0]
    return all(d.better != "higher" for key, d in DEFINITIONS.items() if key.partition("@")[0] == name)


def effect(metric: str, a: Sequence[Round], b: Sequence[Round], *, paired: bool, tolerance: float = 0.0) -> Effect:
    """Compares the rounds of two sides; `paired` when round i of one belongs with round i of the other.

    `tolerance` is the worsening that is put up with: 0.02 is 2 % of A, for shares 0.02 is two hundredths.
    """
    if metric in SHARES:
        return _share_effect(metric, a, b, paired, tolerance)
    ours, theirs = ([r.numbers[metric] for r in side if metric in r.numbers] for side in (b, a))
    mean_a, mean_b = (_geometric([s.value for s in side]) for side in (theirs, ours))
    found = Effect(metric, mean_a, mean_b, rounds=(len(theirs), len(ours)))
    why = _why_unknown(metric, a, b, mean_a, mean_b)
    if why:
        return replace(found, note=why)
    log_a, log_b = (np.log([s.value for s in side]) for side in (theirs, ours))
    noise = [np.array([s.log_se for s in side]) for side in (theirs, ours)]
    if any(np.isnan(side).any() for side in noise):
        return replace(found, note="too few requests, or too many failures, for an interval")
    error = _difference(
        (log_a, noise[0], min(s.df for s in theirs)), (log_b, noise[1], min(s.df for s in ours)), paired
    )
    low, high = (math.exp(end) for end in error.band())
    ratio = math.exp(error.value)
    limit = math.log1p(tolerance) if lower_is_better(metric) else math.log(max(1 - tolerance, 1e-9))
    return replace(
        found,
        ratio=ratio,
        difference=mean_b - mean_a,
        interval=Interval(low, high, LEVEL),
        difference_interval=Interval(mean_a * (low - 1), mean_a * (high - 1), LEVEL),
        detectable=math.expm1(min(error.detectable(), 50.0)),
        p=error.p_beyond(),
        p_worse=error.p_beyond(limit),
        note=_one_round(a, b),
        method=error.method,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values such that calling those below 0.05 raises any false alarm at most 5 % of the time (Holm)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, floor = [1.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        floor = max(floor, min((len(p_values) - place) * p_values[i], 1.0))
        adjusted[i] = floor
    return adjusted


def judge_family(effects: Sequence[Effect], tolerance: float = 0.0) -> list[Effect]:
    """The same effects with their outcome. All that are known are one family: see `holm`."""
    known = [i for i, one in enumerate(effects) if one.known]
    changed = dict(zip(known, holm([effects[i].p for i in known]), strict=True))
    worsened = dict(zip(known, holm([effects[i].p_worse for i in known]), strict=True))
    return [_judged(one, changed[i], worsened[i], tolerance) if i in changed else one for i, one in enumerate(effects)]


def _judged(one: Effect, p: float, p_worse: float, tolerance: float) -> Effect:
    moved = one.difference if one.is_share else math.log(one.ratio)
    if p >= 1 - LEVEL or moved == 0:
        alone = one.p < 1 - LEVEL and moved != 0
        why = "alone it would count, among so many it may be chance" if alone else ""
        return replace(one, outcome=UNCHANGED, note="; ".join(part for part in (one.note, why) if part))
    worse = (moved > 0) == lower_is_better(one.metric)
    size = one.difference if one.is_share else one.ratio - 1
    beyond = worse and abs(size) > tolerance and p_worse < 1 - LEVEL
    return replace(one, outcome=WORSE if worse else BETTER, regression=beyond)


def _difference(
    a: tuple[np.ndarray, np.ndarray, float], b: tuple[np.ndarray, np.ndarray, float], paired: bool
) -> _Error:
    """Mean of b − mean of a. Each side: values, their standard errors from within, degrees of freedom of those."""
    (ya, wa, dfa), (yb, wb, dfb) = a, b
    na, nb = len(ya), len(yb)
    value = float(yb.mean() - ya.mean())
    inside_a, inside_b = float((wa**2).mean()) / na, float((wb**2).mean()) / nb
    inside = math.sqrt(inside_a + inside_b)
    if paired and na == nb and na >= FEWEST_PAIRS:
        se = float((yb - ya).std(ddof=1)) / math.sqrt(na)
        return _Error(value, se if na >= FEW else max(se, inside), na - 1, f"paired by {na} rounds")
    if na == 1 and nb == 1:
        return _Error(value, inside, satterthwaite(inside_a, dfa, inside_b, dfb), "blocks of requests, one round each")
    # a side of one round borrows the other's spread between rounds
    spread_a = float(ya.var(ddof=1)) if na > 1 else float(yb.var(ddof=1))
    spread_b = float(yb.var(ddof=1)) if nb > 1 else float(ya.var(ddof=1))
    floor_a, floor_b = (0.0, 0.0) if min(na, nb) >= FEW else (inside_a, inside_b)
    part_a, part_b = max(spread_a / na, floor_a), max(spread_b / nb, floor_b)
    df = satterthwaite(part_a, na - 1, part_b, nb - 1) if na > 1 and nb > 1 else float(max(na, nb) - 1)
    return _Error(value, math.sqrt(part_a + part_b), df, f"{na} and {nb} rounds, not paired")


def _share_effect(metric: str, a: Sequence[Round], b: Sequence[Round], paired: bool, tolerance: float) -> Effect:
    """Difference of two shares: Newcombe's interval, or the spread between rounds where that is wider."""
    found = [[r.shares[metric] for r in side if r.shares.get(metric, (0, 0))[1]] for side in (a, b)]
    if not all(found):
        return Effect(metric, math.nan, math.nan, note="not measured on both")
    (ha, na), (hb, nb) = ((sum(h for h, _ in side), sum(n for _, n in side)) for side in found)
    pa, pb = ha / na, hb / nb
    wa, wb = wilson(ha, na), wilson(hb, nb)
    assert wa is not None
    assert wb is not None
    value = pb - pa
    low = value - math.hypot(pb - wb.low, wa.high - pa)
    high = value + math.hypot(wb.high - pb, pa - wa.low)
    se, df, method = (high - low) / (2 * t_quantile((1 + LEVEL) / 2, math.inf)), math.inf, "Newcombe"
    rounds = [np.array([h / n for h, n in side]) for side in found]
    if min(len(side) for side in rounds) >= 2:
        quiet = [np.zeros(len(side)) for side in rounds]
        between = _difference((rounds[0], quiet[0], math.inf), (rounds[1], quiet[1], math.inf), paired)
        if between.detectable() > _Error(value, se, df, "").detectable():
            se, df, method = between.se, between.df, between.method
            value = between.value
            low, high = between.band()
    error = _Error(value, se, df, method)
    limit = tolerance if lower_is_better(metric) else -tolerance
    # Newcombe's interval is not symmetric, so whether it holds 0 decides, not the symmetric p alone
    p = error.p_beyond() if low > 0 or high < 0 else max(error.p_beyond(), 1 - LEVEL)
    return Effect(
        metric, pa, pb, math.nan, value, None, Interval(max(low, -1.0), min(high, 1.0), LEVEL), error.detectable(),
        p, max(error.p_beyond(limit), p if tolerance == 0 else 0.0), note=_one_round(a, b), method=method,
        rounds=(len(found[0]), len(found[1])),
    )  # fmt: skip


def _geometric(values: Sequence[float]) -> float:
    """Geometric mean over rounds; NaN without values, 0 or infinite as soon as one is."""
    if not values or any(math.isnan(value) for value in values):
        return math.nan
    if any(value == 0 or math.isinf(value) for value in values):
        return math.inf if any(math.isinf(value) for value in values) else 0.0
    return math.exp(sum(map(math.log, values)) / len(values))


def _one_round(a: Sequence[Round], b: Sequence[Round]) -> str:
    return "" if max(len(a), len(b)) > 1 else "one round each: what differs from start to start is not in the interval"


def _why_unknown(metric: str, a: Sequence[Round], b: Sequence[Round], mean_a: float, mean_b: float) -> str:
    """Why nothing can be said about the difference; '' when something can."""
    if math.isnan(mean_a) or math.isnan(mean_b):
        return "not measured on both"
    if math.isinf(mean_a) or math.isinf(mean_b):
        return "failed requests make it infinite: see failed_share"
    if mean_a == 0 or mean_b == 0:
        if metric.startswith("itl_ms"):
            return "several tokens come at once, so this gap is 0: tpot_ms compares them"
        return "one side has none"
    cut = [sum(r.counts.get("cut_off", 0) for r in side) for side in (a, b)]
    measured = [sum(r.counts.get("measured", 0) for r in side) for side in (a, b)]
    if metric.startswith(("ttft", "e2e")) and any(c > CUT_MATTERS * m for c, m in zip(cut, measured, strict=True)):
        return "too many requests were cut off at the end, the slow ones first"
    level = level_of(metric)
    counted = min(sum(r.counts.get("counted", 0) for r in side) for side in (a, b))
    if not math.isnan(level) and not metric.startswith("itl_ms") and not enough_to_bound(counted, level):
        needed = math.ceil(math.log(0.025) / math.log(level))
        return f"{counted} requests cannot tell two p{level * 100:.0f} apart (it takes {needed})"
    return ""
