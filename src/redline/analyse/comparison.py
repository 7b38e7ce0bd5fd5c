"""Engines beside each other: every load point's numbers with repeats pooled, and each engine's ratio to the first.

A pooled number is the mean over repeats. Its replicates are the means of the repeats' replicates, moved by how far the
repeats lie apart (their standard error times Student's t: a resample of two or three repeats would be far too sure of
itself), so that what differs from one start of an engine to the next widens the interval. With one repeat nothing is
known about that, and the report says so; beside an engine with more, the spread of that one is taken for both. A share
of requests is one of all repeats' requests together, with its Wilson interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from redline.analyse.bootstrap import generator, interval, ratio, ratio_draws
from redline.analyse.finding import Interval, Verdict
from redline.analyse.percentile import LEVELS, Floats, enough_to_bound
from redline.analyse.slo import wilson
from redline.analyse.student import satterthwaite, t_quantile
from redline.analyse.summary import PointSummary
from redline.analyse.verdict import STATES
from redline.units import DEFINITIONS

Load = tuple[str, float]
"""Kind and value of a load point."""

COMPARED = (
    "output_tokens_per_s", "input_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s",
    "ttft_ms.p50", "ttft_ms.p99", "ttft_ms.sent.p50", "ttft_ms.sent.p99",
    "itl_ms.p50", "itl_ms.p99", "tpot_ms.p50", "tpot_ms.p99", "e2e_ms.p50", "e2e_ms.p99",
)  # fmt: skip
"""Findings that get a ratio."""

CUT_MATTERS = 0.1
"""Share of requests cut off at the end of a load point above which waiting times read too short."""
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "no detectable difference", "unknown"


@dataclass(frozen=True)
class EngineResult:
    """What one engine configuration did with one model. `points` holds one summary per repeat; the figures of the
    process have one entry per start."""

    model: str
    label: str
    points: dict[Load, tuple[PointSummary, ...]]
    startup_s: tuple[float, ...] = ()
    rss_bytes: tuple[float, ...] = ()
    gpu_memory_bytes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Pooled:
    """A number over all repeats. `repeats` are its values, for the spread between starts."""

    name: str
    value: float
    unit: str
    definition: str
    interval: Interval | None = None
    repeats: tuple[float, ...] = ()
    note: str = ""
    draws: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    of: int = 0
    """How many values a percentile was taken of, in the repeat that had fewest; 0 for other numbers."""


@dataclass(frozen=True)
class Ratio:
    """This engine / the first. `outcome` is better, worse, no detectable difference (the interval holds 1), or unknown
    with the reason in `note`. `bound` is ≤ or ≥ where requests of one side were cut off, the slow ones first: the ratio
    is then at most, or at least, what is said."""

    metric: str
    value: float
    interval: Interval | None
    outcome: str
    note: str = ""
    bound: str = ""


@dataclass(frozen=True)
class EnginePoint:
    """One engine at one load point. `counts` are sums over repeats, the verdict is the worst of them."""

    label: str
    numbers: dict[str, Pooled]
    counts: dict[str, int]
    verdict: Verdict
    ratios: dict[str, Ratio] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """NaN when there is no such number."""
        return self.numbers[name].value if name in self.numbers else math.nan


@dataclass(frozen=True)
class PointComparison:
    model: str
    load: Load
    engines: tuple[EnginePoint, ...]

    def engine(self, label: str) -> EnginePoint | None:
        return next((engine for engine in self.engines if engine.label == label), None)


@dataclass(frozen=True)
class Footprint:
    """What an engine costs before it answers: start-up time and memory, and their ratios to the first engine's."""

    label: str
    numbers: dict[str, Pooled]
    ratios: dict[str, Ratio]


@dataclass(frozen=True)
class ModelComparison:
    """`reference` is the first engine that has numbers; '' when none has."""

    model: str
    reference: str
    points: tuple[PointComparison, ...]
    footprints: tuple[Footprint, ...]


@dataclass(frozen=True)
class Comparison:
    models: tuple[ModelComparison, ...]

    def model(self, name: str) -> ModelComparison:
        return next(model for model in self.models if model.model == name)


def only_vectors(point: PointComparison) -> bool:
    """Whether every answer of the point was an embedding, so that no token was put out."""
    known = [engine for engine in point.engines if engine.value("input_tokens_per_s") > 0]
    return bool(known) and all(engine.value("output_tokens") == 0 for engine in known)


def compare_engines(results: Sequence[EngineResult], seed: int = 0) -> Comparison:
    """Engines of the same model beside each other, in the order given; the first with numbers is the reference."""
    names = dict.fromkeys(result.model for result in results)
    return Comparison(tuple(_model([r for r in results if r.model == name], name, seed) for name in names))


def pool(values: Sequence[float], draws: Sequence[Floats], rng: np.random.Generator) -> tuple[float, Floats]:
    """Mean over repeats, and its replicates. Repeats without the number (NaN) are left out."""
    kept = [i for i, value in enumerate(values) if not math.isnan(value)]
    if not kept:
        return math.nan, np.empty(0)
    known = np.array([values[i] for i in kept])
    mean = float(known.mean())
    if any(len(draws[i]) == 0 for i in kept):
        return mean, np.empty(0)
    pooled = np.mean([draws[i] for i in kept], axis=0)
    return mean, _moved(pooled, known, len(kept), rng)


def _moved(draws: Floats, known: Floats, starts: int, rng: np.random.Generator) -> Floats:
    """Replicates moved by as much as the mean of so many starts may be off, by how far the known starts lie apart."""
    n, mean = len(known), float(known.mean())
    if n < 2 or not 0 < mean < math.inf:
        return draws
    error = float(known.std(ddof=1)) / math.sqrt(starts) / mean
    # never to 0, which would make NaN of a replicate that failures made infinite
    return np.asarray(draws * np.maximum(1 + error * rng.standard_t(n - 1, len(draws)), 1e-9), np.float64)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst state, with every reason once."""
    state = max((verdict.state for verdict in verdicts), key=STATES.index, default="invalid")
    said: dict[str, str] = {}
    for verdict in verdicts:
        for i, reason in enumerate(verdict.reasons):
            said.setdefault(reason, verdict.levels[i] if verdict.levels else verdict.state)
    return Verdict(state, tuple(said), tuple(said.values()))


def _model(results: list[EngineResult], name: str, seed: int) -> ModelComparison:
    reference = next((result.label for result in results if result.points), "")
    loads = sorted({load for result in results for load in result.points})
    points = tuple(_point(results, name, load, reference, seed) for load in loads)
    feet = [_foot(result) for result in results if result.startup_s or result.rss_bytes or result.gpu_memory_bytes]
    base = next((numbers for label, numbers in feet if label == reference), {})
    footprints = tuple(
        Footprint(
            label,
            numbers,
            {n: _plain_ratio(p, base[n]) for n, p in numbers.items() if n in base and label != reference},
        )
        for label, numbers in feet
    )
    return ModelComparison(name, reference, points, footprints)


def _point(results: list[EngineResult], model: str, load: Load, reference: str, seed: int) -> PointComparison:
    engines = [_engine(result, load, seed) for result in results if load in result.points]
    base = next((engine for engine in engines if engine.label == reference), None)
    compared = tuple(
        engine
        if base is None or engine is base
        else EnginePoint(
            engine.label,
            engine.numbers,
            engine.counts,
            engine.verdict,
            {m: _ratio(m, engine, base) for m in COMPARED if m in engine.numbers and m in base.numbers},
        )
        for engine in engines
    )
    return PointComparison(model, load, compared)


def _engine(result: EngineResult, load: Load, seed: int) -> EnginePoint:
    summaries = result.points[load]
    numbers = {}
    for name in dict.fromkeys(name for summary in summaries for name in summary.findings):
        findings = [summary.findings[name] for summary in summaries if name in summary.findings]
        draws = [summary.draws.get(name, np.empty(0)) for summary in summaries if name in summary.findings]
        values = tuple(finding.value for finding in findings)
        value, drawn = pool(values, draws, generator(seed, f"{result.model} {result.label} {load} {name}"))
        band = interval(drawn)
        if name in ("failed_share", "slo_attainment"):
            value, band = _share(name, summaries)
        notes = ", ".join(dict.fromkeys(finding.note for finding in findings if finding.note))
        numbers[name] = Pooled(
            name, value, findings[0].unit, findings[0].definition, band, values, notes, drawn,
            min(finding.of for finding in findings),
        )  # fmt: skip
    counts: dict[str, int] = {}
    for summary in summaries:
        for key, count in summary.counts.items():
            counts[key] = counts.get(key, 0) + count
    return EnginePoint(result.label, numbers, counts, worst([summary.verdict for summary in summaries]))


def _share(name: str, summaries: Sequence[PointSummary]) -> tuple[float, Interval | None]:
    known = [(s.value(name), s.counts.get("counted", 0)) for s in summaries if not math.isnan(s.value(name))]
    n, hits = sum(count for _, count in known), sum(round(share * count) for share, count in known)
    return (hits / n if n else math.nan), wilson(hits, n)


def _ratio(metric: str, engine: EnginePoint, base: EnginePoint) -> Ratio:
    ours, theirs = engine.numbers[metric], base.numbers[metric]
    value = ratio(ours.value, theirs.value)
    rng = generator(0, f"{engine.label} {base.label} {metric}")
    band = interval(ratio_draws(_as_unsure(ours, theirs, rng), _as_unsure(theirs, ours, rng)))
    why = _why_unknown(metric, engine, base, value, band)
    if why or band is None:
        return Ratio(metric, value, band, UNKNOWN, why)
    bound = _bound(metric, engine, base)
    if bound and not {"≤": band.high < 1, "≥": band.low > 1}.get(bound, False):
        return Ratio(metric, value, band, UNKNOWN, f"too many requests were cut off, the slow ones first ({bound})")
    if band.low <= 1 <= band.high:
        return Ratio(metric, value, band, SAME)
    lower_is_better = DEFINITIONS[ours.definition].better == "lower"
    return Ratio(metric, value, band, BETTER if (band.high < 1) == lower_is_better else WORSE, bound=bound)


def _as_unsure(one: Pooled, other: Pooled, rng: np.random.Generator) -> Floats:
    """Replicates of a number. Where one start gave it, that is taken to be off by as much as the other's lie apart."""
    starts, known = (np.array([v for v in side.repeats if not math.isnan(v)]) for side in (one, other))
    return _moved(one.draws, known, 1, rng) if len(starts) == 1 < len(known) else one.draws


def _bound(metric: str, engine: EnginePoint, base: EnginePoint) -> str:
    """What cut-off requests make of a ratio of waiting times: '' when they are too few to matter, ? on both sides."""
    if not metric.startswith(("ttft", "e2e")):
        return ""
    cut = [side.counts.get("cancelled", 0) > CUT_MATTERS * side.counts.get("measured", 0) for side in (engine, base)]
    return {(True, True): "?", (True, False): "≥", (False, True): "≤"}.get((cut[0], cut[1]), "")


def _why_unknown(metric: str, engine: EnginePoint, base: EnginePoint, value: float, band: Interval | None) -> str:
    """Why nothing can be said about the difference; '' when something can."""
    for side in (engine, base):
        if side.verdict.state in ("invalid", "client-bound"):
            return f"{side.label} is {side.verdict.state} here"
    if math.isnan(value):
        return "not measured on both"
    if math.isinf(engine.numbers[metric].value) and math.isinf(base.numbers[metric].value):
        return "failed requests make both infinite"
    if metric.startswith("itl_ms") and (base.numbers[metric].value == 0) != (engine.numbers[metric].value == 0):
        return "one of the two sends several tokens at once, so their gaps are 0; TPOT compares them"
    if base.numbers[metric].value == 0 and engine.numbers[metric].value > 0:
        return f"{base.label} has none"
    if band is None:
        return "too few requests for an interval"
    level = LEVELS.get(metric.rpartition(".")[2], 0.5)
    fewest = min(_values_of(side, metric) for side in (engine, base))
    # the ITL percentile is one of many gaps per request, its interval is not short of values
    if not metric.startswith("itl_ms") and not enough_to_bound(fewest, level):
        needed = math.ceil(math.log(0.025) / math.log(level))
        return f"{fewest} requests cannot tell two p{level * 100:.0f} apart (it takes {needed})"
    return ""


def _values_of(side: EnginePoint, metric: str) -> int:
    """What a percentile is of, over all repeats: not every request has a TPOT. Of other numbers, the requests."""
    number = side.numbers[metric]
    return number.of * len(number.repeats) or side.counts.get("counted", 0)


def _foot(result: EngineResult) -> tuple[str, dict[str, Pooled]]:
    numbers = {}
    for name in ("startup_s", "rss_bytes", "gpu_memory_bytes"):
        values = tuple(value for value in getattr(result, name) if not math.isnan(value))
        if values:
            definition = f"{name}@1"
            mean = float(np.mean(values))
            numbers[name] = Pooled(name, mean, DEFINITIONS[definition].unit, definition, repeats=values)
    return result.label, numbers


def _plain_ratio(ours: Pooled, theirs: Pooled) -> Ratio:
    """Of numbers that each start gives once, all of them better when lower: told apart by how far the starts of each
    lie apart (Welch's t of the logarithms, 95 %)."""
    value, name = ratio(ours.value, theirs.value), ours.name
    if min(len(ours.repeats), len(theirs.repeats)) < 2:
        return Ratio(name, value, None, UNKNOWN, "one start each: no spread known")
    if min(*ours.repeats, *theirs.repeats) <= 0:
        return Ratio(name, value, None, UNKNOWN, "a start that took nothing has no ratio")
    x, y = np.log(ours.repeats), np.log(theirs.repeats)
    parts = (float(x.var(ddof=1)) / len(x), float(y.var(ddof=1)) / len(y))
    reach = t_quantile(0.975, satterthwaite(parts[0], len(x) - 1, parts[1], len(y) - 1)) * math.sqrt(sum(parts))
    middle = float(x.mean() - y.mean())
    band = Interval(math.exp(middle - reach), math.exp(middle + reach))
    if band.low <= 1 <= band.high:
        return Ratio(name, value, band, SAME)
    return Ratio(name, value, band, BETTER if band.high < 1 else WORSE)
