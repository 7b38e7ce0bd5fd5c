"""Is a threshold met? Answered with the interval in mind: pass, fail, cannot tell, or not judged.

"Cannot tell" is a close call: the interval holds the limit. "Not judged" is none at all: there is no number, or none
that may be believed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from redline.analyse.comparison import UNKNOWN, EnginePoint, Load, ModelComparison
from redline.analyse.finding import Interval
from redline.spec.threshold import Threshold

PASS, FAIL, CANNOT_TELL, NOT_JUDGED = "pass", "fail", "cannot tell", "not judged"


@dataclass(frozen=True)
class Judged:
    """One threshold at one load point of one engine. `load` is None where nothing that was measured fits it."""

    threshold: Threshold
    model: str
    engine: str
    load: Load | None
    value: float
    interval: Interval | None
    outcome: str
    note: str = ""


def judge_thresholds(models: Sequence[ModelComparison], thresholds: Sequence[Threshold]) -> list[Judged]:
    """Every threshold wherever it applies, in the order given."""
    found = []
    for threshold in thresholds:
        mine = [
            _judged(threshold, model, point.load, engine)
            for model in models
            for point in model.points
            for engine in point.engines
            if threshold.applies(*point.load, engine.label) and not _is_reference(threshold, model, engine)
        ]
        nothing = Judged(threshold, "", "", None, math.nan, None, NOT_JUDGED, "nothing that was measured fits it")
        found += mine or [nothing]
    return found


def decide(sign: str, limit: float, value: float, interval: Interval | None) -> tuple[str, str]:
    """The outcome for one number and what to say about it."""
    if math.isnan(value):
        return NOT_JUDGED, "not measured"
    below = sign == "<"
    if interval is None:
        if math.isinf(value):
            return (FAIL if below == (value > 0) else PASS), ""
        return (PASS if (value < limit) == below and value != limit else FAIL), "no interval: the number alone"
    if interval.high < limit or interval.low > limit:
        return (PASS if (interval.high < limit) == below else FAIL), ""
    return CANNOT_TELL, "the interval holds the limit: more requests or rounds would tell"


def _judged(threshold: Threshold, model: ModelComparison, load: Load, engine: EnginePoint) -> Judged:
    value, interval, why = _number(threshold, engine)
    outcome, note = (NOT_JUDGED, why) if why else decide(threshold.sign, threshold.limit, value, interval)
    if doubt := _not_to_be_believed(threshold, engine, outcome):
        outcome, note = NOT_JUDGED, doubt
    return Judged(threshold, model.model, engine.label, load, value, interval, outcome, note)


def _not_to_be_believed(threshold: Threshold, engine: EnginePoint, outcome: str) -> str:
    """Why the verdict of the point forbids this outcome; '' when it does not."""
    verdict = engine.verdict
    if verdict.state not in ("invalid", "client-bound"):
        return ""
    # failures make a point invalid, and are just what this threshold asks about; unless they were the client's own
    if threshold.metric == "failed_share" and outcome == FAIL and "client-bound" not in verdict.levels:
        return ""
    worst = [why for why, level in zip(verdict.reasons, verdict.levels, strict=False) if level == verdict.state]
    return ": ".join((f"the point is {verdict.state}", *worst[:1]))


def _number(threshold: Threshold, engine: EnginePoint) -> tuple[float, Interval | None, str]:
    name = threshold.metric
    if name.startswith("ratio."):
        ratio = engine.ratios.get(name.removeprefix("ratio."))
        if ratio is None:
            return math.nan, None, "no ratio: one of the two sides is missing"
        return ratio.value, ratio.interval, ratio.note or "unknown" if ratio.outcome == UNKNOWN else ""
    pooled = engine.numbers.get(name)
    if pooled is None:
        needs_slo = name.startswith(("goodput", "slo_"))
        return math.nan, None, "it needs an SLO, and none is set" if needs_slo else "not measured"
    return pooled.value, pooled.interval, ""


def _is_reference(threshold: Threshold, model: ModelComparison, engine: EnginePoint) -> bool:
    return threshold.metric.startswith("ratio.") and engine.label == model.reference
