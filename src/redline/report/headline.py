"""What won, by how much, and whether it is real: a few sentences made from the comparison."""

from __future__ import annotations

from dataclasses import dataclass

from redline.analyse.comparison import (
    BETTER,
    SAME,
    UNKNOWN,
    WORSE,
    EnginePoint,
    ModelComparison,
    PointComparison,
    Ratio,
    only_vectors,
)
from redline.report.model import ModelReport, Report, load_label
from redline.report.numbers import NAMES, ratio_text
from redline.report.proof import KEY as PROOF


@dataclass(frozen=True)
class Claim:
    """One engine against the first at the point where it matters most: the highest load that can be compared.

    `outcome` is that of the throughput ratio. `where` says at how many load points the claim holds, `why` what makes it
    less than certain.
    """

    model: str
    engine: str
    reference: str
    load: str
    throughput: Ratio | None
    latencies: tuple[Ratio, ...]
    outcome: str
    text: str
    where: str
    why: str = ""


def claims(report: Report) -> list[Claim]:
    """One claim for every engine but the first, model by model; none where pairs of a setting's values were measured,
    which say it themselves."""
    if any(section.key == PROOF for section in report.sections):
        return []
    return [
        _claim(model.comparison, engine.label, report)
        for model in report.models
        for engine in model.engines
        if engine.points and model.comparison.reference not in ("", engine.label)
    ]


def caveats(report: Report) -> list[str]:
    """What a reader should know before believing any of it."""
    texts = []
    starts = max(
        (
            len({one.trial_id for one in found})  # rounds of an engine that stays up are of one start
            for model in report.models
            for engine in model.engines
            for found in engine.points.values()
        ),
        default=0,
    )
    if starts == 1 and any(len(model.engines) > 1 for model in report.models):
        texts.append(
            "Each engine was started once: intervals cover the noise within a run, not what differs from start to "
            "start; three repeats (--repeats 3) measure that too."
        )
    lengths = [text for model in report.models for text in _lengths(model)]
    return texts + list(dict.fromkeys(lengths))


def _claim(model: ModelComparison, label: str, report: Report) -> Claim:
    both = [point for point in model.points if point.engine(label) and point.engine(model.reference)]
    told = [point for point in both if _throughput(point, label).outcome != UNKNOWN]
    if not both:
        text = f"{label} and {model.reference} have no load point in common"
        return Claim(model.model, label, model.reference, "", None, (), UNKNOWN, text, "")
    point = (told or both)[-1]
    ratio = _throughput(point, label)
    load = load_label(point.load)
    ours = _engine(point, label)
    latencies = tuple(ours.ratios[name] for name in _told_latencies(ours) if name in ours.ratios)
    text = _sentence(label, model.reference, load, ratio, ours)
    if only_vectors(point):
        text = text.replace("output t", "input t")
    outcomes = [_throughput(p, label).outcome for p in both]
    same = outcomes.count(ratio.outcome)
    where = f"{_WHERE[ratio.outcome]} at {same} of {len(both)} load points" if len(both) > 1 else ""
    why = _doubt(point, label, model.reference)
    if ratio.outcome == UNKNOWN and not why.startswith(ratio.note):
        why = ratio.note
    return Claim(model.model, label, model.reference, load, ratio, latencies, ratio.outcome, text, where, why)


_WHERE = {BETTER: "ahead", WORSE: "behind", SAME: "no detectable difference", UNKNOWN: "not comparable"}


def _sentence(label: str, reference: str, load: str, ratio: Ratio, engine: EnginePoint) -> str:
    if ratio.outcome == UNKNOWN:
        return f"{label} against {reference} at {load}: cannot be said"
    if ratio.outcome == SAME:
        return (
            f"no detectable difference in output throughput between {label} and {reference} at {load} "
            f"({ratio_text(ratio).removeprefix('≈ ')}, 95 % interval)"
        )
    text = f"{label} delivers {ratio_text(ratio)} the output tokens per second of {reference} at {load}"
    told = [
        f"{ratio_text(found)} the median {NAMES[metric.partition('.')[0]]}"
        for metric in _told_latencies(engine)[:2]
        if (found := engine.ratios.get(metric)) and found.outcome in (BETTER, WORSE)
    ]
    return text + (f", with {' and '.join(told)}" if told else "")


def _told_latencies(engine: EnginePoint) -> tuple[str, str, str]:
    """TPOT stands in for an ITL that cannot be compared."""
    itl = engine.ratios.get("itl_ms.p50")
    pace = "tpot_ms.p50" if itl is None or itl.outcome == UNKNOWN else "itl_ms.p50"
    return "ttft_ms.p50", pace, "e2e_ms.p50"


def _doubt(point: PointComparison, label: str, reference: str) -> str:
    """The first reason why either side is not fully valid here."""
    for name in (label, reference):
        verdict = _engine(point, name).verdict
        if verdict.state != "valid" and verdict.reasons:
            return f"{name} is {verdict.state} here: {verdict.reasons[0]}"
    return ""


def _throughput(point: PointComparison, label: str) -> Ratio:
    name = "input_tokens_per_s" if only_vectors(point) else "output_tokens_per_s"
    found = _engine(point, label).ratios.get(name)
    return found or Ratio(name, float("nan"), None, UNKNOWN, "not measured on both")


def _engine(point: PointComparison, label: str) -> EnginePoint:
    found = point.engine(label)
    assert found is not None
    return found


def _lengths(model: ModelReport) -> list[str]:
    """Answers of different length are different work: where they differ most."""
    worst: tuple[float, str] = (1.05, "")
    for point in model.comparison.points:
        lengths = {e.label: e.value("output_tokens") for e in point.engines if e.value("output_tokens") > 0}
        if lengths and max(lengths.values()) > worst[0] * min(lengths.values()):
            said = ", ".join(f"{label} {value:.0f}" for label, value in lengths.items())
            worst = (
                max(lengths.values()) / min(lengths.values()),
                f"{said} tokens on average at {load_label(point.load)}",
            )
    return (
        [f"Answers differ in length ({worst[1]}): E2E and requests per second compare different work."]
        if worst[1]
        else []
    )
