"""Two stored runs set against each other: effects, verdicts, what differs, and what a CI job should make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redline.analyse.comparison import BETTER, WORSE, Load
from redline.analyse.effect import DEFAULT_METRICS, SHARES, Effect, effect, judge_family
from redline.analyse.percentile import LEVELS
from redline.analyse.rounds import LATENCIES
from redline.errors import UsageError
from redline.report.differing import Differing, differing
from redline.report.sides import Side, find_sides, rounds_of, same_rounds
from redline.spec.faults import did_you_mean
from redline.store.read import Reader, default_path
from redline.store.rows import PointRow, RunRow

REGRESSION, NOT_COMPARABLE = 5, 6
METRICS = (
    "output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s",
    *(f"{name}.{level}" for name in (*LATENCIES, "itl_ms") for level in LEVELS), *SHARES,
)  # fmt: skip
"""What can be asked for with --metric."""


@dataclass(frozen=True)
class VersusPoint:
    """One load point of a pair. `barred` says why the verdicts forbid the comparison, `doubts` what they warn of."""

    load: Load
    label: str
    effects: tuple[Effect, ...]
    barred: str = ""
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class VersusPair:
    model: str
    a: str
    b: str
    points: tuple[VersusPoint, ...]
    differing: tuple[Differing, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()


@dataclass(frozen=True)
class Versus:
    """B against A. `tested` is the number of effects that were judged together."""

    a: str
    b: str
    pairs: tuple[VersusPair, ...]
    metrics: tuple[str, ...]
    tolerance: float
    tested: int

    def effects(self) -> list[tuple[VersusPair, VersusPoint, Effect]]:
        return [(pair, point, one) for pair in self.pairs for point in pair.points for one in point.effects]

    @property
    def regressions(self) -> list[tuple[VersusPair, VersusPoint, Effect]]:
        return [found for found in self.effects() if found[2].regression]

    @property
    def barred(self) -> list[tuple[VersusPair, VersusPoint]]:
        return [(pair, point) for pair in self.pairs for point in pair.points if point.barred]

    @property
    def exit_code(self) -> int:
        """0 no regression, 5 a regression beyond the tolerance, 6 where something could not be compared."""
        if self.regressions:
            return REGRESSION
        return NOT_COMPARABLE if self.barred or self.tested == 0 else 0

    @property
    def headline(self) -> str:
        found = [one.outcome for *_, one in self.effects()]
        if self.tested == 0:
            return "cannot be compared"
        parts = [f"{count} {word}" for word in (WORSE, BETTER) if (count := found.count(word))]
        still = self.tested - found.count(WORSE) - found.count(BETTER)
        return ", ".join([*parts, *([f"{still} with no detectable change"] if still else [])])


def compare_runs(
    a: str,
    b: str,
    *,
    db: Path | None = None,
    metrics: Sequence[str] = (),
    tolerance: float = 0.0,
) -> Versus:
    """`redline compare A B` from Python: ids, beginnings of ids, `last`, `last~1`, each with `:ENGINE` if need be.

    `tolerance` 0.02 puts up with a worsening of 2 %. UsageError when the two have nothing in common.
    """
    wanted = metrics_of(metrics)
    if not 0 <= tolerance < 1:
        raise UsageError(f"a tolerance of {tolerance:.0%} makes no sense", fix="between 0 and 100 %")
    with Reader.open(db or default_path()) as reader:
        pairs = [_pair(reader, x, y, wanted, tolerance) for x, y in find_sides(reader, a, b)]
    if not any(pair.points for pair in pairs):
        raise UsageError(
            f"{a} and {b} have no load point in common",
            why=f"A has {', '.join(pairs[0].only_a) or 'none'}; B has {', '.join(pairs[0].only_b) or 'none'}",
            fix="measure both at the same --concurrency or --rate",
        )
    return _judged(a, b, pairs, wanted, tolerance)


def set_against(reader: Reader, run: RunRow, engines: Sequence[tuple[str, str, str]]) -> Versus:
    """Engines of one run, each (model, label of A, label of B) a pair; they are judged together."""
    pairs = [
        _pair(
            reader, Side.among(run, run.trials, model, a), Side.among(run, run.trials, model, b), DEFAULT_METRICS, 0.0
        )
        for model, a, b in engines
    ]
    return _judged(run.id, run.id, pairs, DEFAULT_METRICS, 0.0)


def metrics_of(asked: Sequence[str]) -> tuple[str, ...]:
    for name in asked:
        if name not in METRICS:
            raise UsageError(f"no metric {name!r} can be compared", fix=did_you_mean(name, METRICS))
    return tuple(dict.fromkeys(asked)) or DEFAULT_METRICS


def _judged(a: str, b: str, pairs: Sequence[VersusPair], metrics: tuple[str, ...], tolerance: float) -> Versus:
    """All effects of all points are one family: a false alarm anywhere is a false alarm."""
    flat = [one for pair in pairs for point in pair.points for one in point.effects]
    verdicts = iter(judge_family(flat, tolerance))
    judged = tuple(
        VersusPair(
            pair.model, pair.a, pair.b,
            tuple(
                VersusPoint(p.load, p.label, tuple(next(verdicts) for _ in p.effects), p.barred, p.doubts)
                for p in pair.points
            ),
            pair.differing, pair.only_a, pair.only_b,
        )
        for pair in pairs
    )  # fmt: skip
    return Versus(a, b, judged, metrics, tolerance, sum(one.known for one in flat))


def _pair(reader: Reader, a: Side, b: Side, metrics: Sequence[str], tolerance: float) -> VersusPair:
    ours, theirs = a.points(), b.points()
    points = [_point(reader, (a, ours[load]), (b, theirs[load]), metrics, tolerance) for load in ours if load in theirs]
    return VersusPair(
        a.model if a.model == b.model else f"{a.model} → {b.model}",
        a.name,
        b.name,
        tuple(points),
        tuple(differing((a.run, a.trial), (b.run, b.trial))),
        tuple(found[0].label for load, found in ours.items() if load not in theirs),
        tuple(found[0].label for load, found in theirs.items() if load not in ours),
    )


def _point(
    reader: Reader,
    a: tuple[Side, list[PointRow]],
    b: tuple[Side, list[PointRow]],
    metrics: Sequence[str],
    tolerance: float,
) -> VersusPoint:
    load, label = (a[1][0].kind, a[1][0].value), a[1][0].label
    if a[0].run.id == b[0].run.id:
        ours_in, theirs_in = same_rounds(a[1], b[1])
        a, b = (a[0], ours_in), (b[0], theirs_in)
    doubts, bars = _verdicts(a, b)
    if bars:
        return VersusPoint(load, label, (), bars, doubts)
    ours, theirs = (rounds_of(reader, side, points) for side, points in (a, b))
    paired = a[0].run.id == b[0].run.id and len(ours) == len(theirs)
    known = [m for m in metrics if any(m in r.numbers or m in r.shares for r in (*ours, *theirs))]
    effects = tuple(effect(metric, ours, theirs, paired=paired, tolerance=tolerance) for metric in known)
    return VersusPoint(load, label, effects, "", doubts)


def _verdicts(a: tuple[Side, list[PointRow]], b: tuple[Side, list[PointRow]]) -> tuple[tuple[str, ...], str]:
    """What the verdicts of both sides warn of, and why they forbid a comparison ('' when they do not)."""
    doubts: list[str] = []
    for name, (_, points) in zip("AB", (a, b), strict=True):
        for point in points:
            why = "; ".join(point.reasons)
            if point.verdict in ("invalid", "client-bound"):
                return tuple(doubts), f"{name} is {point.verdict}: {why}"
            if point.verdict == "degraded":
                doubts.append(f"{name} is degraded: {why}")
    return tuple(dict.fromkeys(doubts)), ""
