"""Does a setting help on this box? From rounds with and without it: effects, what its mechanism says, a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from redline.analyse.comparison import BETTER, UNKNOWN, WORSE
from redline.analyse.effect import LEVEL, UNCHANGED, Effect, effect, holm, judge_family
from redline.analyse.rounds import Round
from redline.analyse.student import t_quantile, two_sided

FEWEST_ROUNDS = 3
Verdict = Literal["helps", "hurts", "helps and hurts", "no measurable effect", "not testable here", "not measured"]
_WORDS: dict[str, Verdict] = {
    BETTER: "helps",
    WORSE: "hurts",
    UNCHANGED: "no measurable effect",
    UNKNOWN: "not measured",
}


@dataclass(frozen=True)
class Shift:
    """How a signal differs with the setting, paired by round. `moved`: more than chance, among all of its setting."""

    name: str
    present: float
    wanted: float
    difference: float
    low: float
    high: float
    p: float
    moved: bool = False


@dataclass(frozen=True)
class MetricEffect:
    """`effect` is that of the wanted value against the present one, at the load `load`."""

    load: str
    effect: Effect

    @property
    def verdict(self) -> Verdict:
        return _WORDS[self.effect.outcome]


@dataclass(frozen=True)
class Sides:
    """What was measured of one setting: rounds by load, and signals by round, each for the present and the wanted
    value, in pairs."""

    rounds: Mapping[str, tuple[list[Round], list[Round]]] = field(default_factory=dict)
    signals: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proof:
    """One setting. `how`: what happens between rounds. `why`: why it could not be tested, or measured to the end."""

    id: str
    present: str
    wanted: str
    where: str
    how: str
    verdict: Verdict
    why: str = ""
    rounds: int = 0
    effects: tuple[MetricEffect, ...] = ()
    signal: str = ""
    shifts: tuple[Shift, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def useful(self) -> bool:
        return self.verdict == "helps"

    def to_json(self) -> dict[str, Any]:
        effects = [{"load": one.load, "verdict": one.verdict, **asdict(one.effect)} for one in self.effects]
        return {**asdict(self), "effects": effects, "useful": self.useful}


def weigh(sides: Sides, metrics: Sequence[str]) -> tuple[tuple[MetricEffect, ...], tuple[Shift, ...], int]:
    """Effects that are not judged yet, shifts of signals, and how many rounds both values have."""
    effects = tuple(
        MetricEffect(load, effect(metric, present, wanted, paired=len(present) == len(wanted)))
        for load, (present, wanted) in sides.rounds.items()
        for metric in metrics
        if any(metric in one.numbers or metric in one.shares for one in (*present, *wanted))
    )
    counted = [min(len(present), len(wanted)) for present, wanted in sides.rounds.values()]
    return effects, shifts(*sides.signals), min(counted, default=0)


def judged(proofs: Sequence[Proof]) -> list[Proof]:
    """With verdicts. All effects of all settings are one family: at most 5 % of such tables hold a false alarm."""
    verdicts = iter(judge_family([one.effect for proof in proofs for one in proof.effects]))
    found = []
    for proof in proofs:
        effects = tuple(replace(one, effect=next(verdicts)) for one in proof.effects)
        if proof.verdict == "not testable here":
            found.append(proof)
        else:
            found.append(replace(proof, effects=effects, verdict=_together([one.verdict for one in effects])))
    return found


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    helps, hurts = "helps" in verdicts, "hurts" in verdicts
    if helps or hurts:
        return "helps and hurts" if helps and hurts else "helps" if helps else "hurts"
    return "no measurable effect" if "no measurable effect" in verdicts else "not measured"


def shifts(present: Sequence[Mapping[str, float]], wanted: Sequence[Mapping[str, float]]) -> tuple[Shift, ...]:
    """Signals that were read in every round of both values; those of rounds without a partner are left out."""
    count = min(len(present), len(wanted))
    pairs = list(zip(present[:count], wanted[:count], strict=True))
    names = [name for name in (pairs[0][0] if pairs else ()) if all(name in a and name in b for a, b in pairs)]
    found = [_shift(name, [a[name] for a, _ in pairs], [b[name] for _, b in pairs]) for name in names]
    corrected = holm([one.p for one in found])
    return tuple(replace(one, moved=p < 1 - LEVEL) for one, p in zip(found, corrected, strict=True))


def _shift(name: str, present: Sequence[float], wanted: Sequence[float]) -> Shift:
    a, b = np.asarray(present, float), np.asarray(wanted, float)
    difference, count = float((b - a).mean()), len(a)
    if count < FEWEST_ROUNDS:
        return Shift(name, float(a.mean()), float(b.mean()), difference, math.nan, math.nan, 1.0)
    error = float((b - a).std(ddof=1)) / math.sqrt(count)
    half = t_quantile((1 + LEVEL) / 2, count - 1) * error
    p = two_sided(difference / error, count - 1) if error > 0 else float(difference == 0)
    return Shift(name, float(a.mean()), float(b.mean()), difference, difference - half, difference + half, p)
