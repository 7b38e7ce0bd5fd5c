"""What stands in the comparison table, the same in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from redline.analyse.comparison import (
    EnginePoint,
    Load,
    ModelComparison,
    PointComparison,
    Pooled,
    Ratio,
    only_vectors,
)
from redline.analyse.percentile import is_maximum_of
from redline.analyse.slo import promised_share
from redline.analyse.verdict import STATES
from redline.report.model import Report, load_label
from redline.report.numbers import FEW_MARK, number, quantity
from redline.units import DEFINITIONS


@dataclass(frozen=True)
class Column:
    """`group` and `head` are the two lines of its heading."""

    name: str
    group: str
    head: str

    @property
    def unit(self) -> str:
        return {"tok/s": "tok/s", "req/s": "req/s"}.get(self.head, "ms")


LATENCIES = (
    Column("ttft_ms.p50", "TTFT ms", "p50"),
    Column("ttft_ms.p99", "", "p99"),
    Column("itl_ms.p50", "ITL ms", "p50"),
    Column("itl_ms.p99", "", "p99"),
    Column("e2e_ms.p50", "E2E ms", "p50"),
    Column("e2e_ms.p99", "", "p99"),
)
RATES = (Column("output_tokens_per_s", "output", "tok/s"), Column("requests_per_s", "done", "req/s"))
VECTORS = (*LATENCIES[-2:], Column("input_tokens_per_s", "input", "tok/s"), RATES[1])
"""Instead of both when every answer was an embedding, which has no first token."""
GOODPUT = Column("goodput_per_s", "good", "req/s")

RATIOS = ("output_tokens_per_s", "ttft_ms.p50", "itl_ms.p50", "e2e_ms.p50")
RATIO_HEADS = {
    "input_tokens_per_s": "input tok/s",
    "output_tokens_per_s": "output tok/s", "goodput_per_s": "goodput", "ttft_ms.p50": "TTFT p50",
    "itl_ms.p50": "ITL p50", "e2e_ms.p50": "E2E p50",
}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")

FOOTPRINT = ("startup_s", "rss_bytes", "gpu_memory_bytes")
FOOTPRINT_HEADS = {"startup_s": "start-up", "rss_bytes": "peak memory", "gpu_memory_bytes": "peak GPU memory"}


def columns(report: Report) -> tuple[Column, ...]:
    shown = VECTORS if vectors(report) else (*LATENCIES, *RATES)
    return (*shown, *((GOODPUT,) if report.promised else ()))


def vectors(report: Report) -> bool:
    """Whether every answer of the report was an embedding."""
    points = [point for model in report.comparison.models for point in model.points]
    return bool(points) and all(map(only_vectors, points))


def ratio_columns(report: Report) -> tuple[str, ...]:
    if vectors(report):
        return ("input_tokens_per_s", *(("goodput_per_s",) if report.promised else ()), "e2e_ms.p50")
    return (*RATIOS[:1], *(("goodput_per_s",) if report.promised else ()), *RATIOS[1:])


def cell(found: EnginePoint, column: Column) -> str:
    return number(found.value(column.name)) + (FEW_MARK if shaky(found, column) else "")


def shaky(found: EnginePoint, column: Column) -> bool:
    """True for a percentile that rests on too few values to be more than their maximum."""
    pooled = found.numbers.get(column.name)
    return pooled is not None and not math.isnan(pooled.value) and is_maximum_of(column.name, pooled.of)


def any_shaky(model: ModelComparison, report: Report) -> bool:
    """Whether the table of this model has a marked percentile."""
    return any(shaky(found, c) for point in model.points for found in point.engines for c in columns(report))


def failed_text(found: EnginePoint) -> str:
    """`3` failures; cut-off requests beside them: `3 +12 cut`."""
    cut = found.counts.get("cancelled", 0)
    return f"{found.counts.get('failed', 0)}" + (f" +{cut} cut" if cut else "")


def footprint_text(pooled: Pooled | None) -> str:
    """Mean over the starts, with their spread when there were several."""
    if pooled is None:
        return "–"
    if pooled.name == "startup_s":
        spread = f" ({number(min(pooled.repeats))}–{number(max(pooled.repeats))})" if len(pooled.repeats) > 1 else ""
        return f"{number(pooled.value)} s{spread}"
    return quantity(pooled)


def arrow(ratio: Ratio | None) -> str:
    """▲ better, ▼ worse, nothing where that cannot be said."""
    return {"better": "▲ ", "worse": "▼ "}.get(ratio.outcome if ratio else "", "")


def slo_text(report: Report) -> str:
    """`TTFT ≤ 200 ms and ITL ≤ 40 ms for 95 % of requests`."""
    if report.promises:
        said = {name: terms_text(promise.terms, promise.attainment) for name, promise in report.promises.items()}
        return "; ".join(f"{name}: {text}" for name, text in said.items() if text)
    return terms_text(report.slo, report.attainment)


def terms_text(terms: Mapping[str, float], attainment: float) -> str:
    names = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL (p99 of each request)", "e2e_ms": "E2E"}
    said = " and ".join(f"{names[name]} ≤ {number(limit)} ms" for name, limit in terms.items())
    return f"{said} for {promised_share(attainment)} of the requests" if said else ""


def reasons(model: ModelComparison) -> list[tuple[str, str, str]]:
    """(level, where, why) of everything that is not simply valid; reasons that differ in their numbers only are one."""
    found: dict[tuple[str, str], list[tuple[EnginePoint, PointComparison, str]]] = {}
    for point in model.points:
        for engine in point.engines:
            verdict = engine.verdict
            for reason, level in zip(verdict.reasons, verdict.levels or (verdict.state,) * 99, strict=False):
                key = (level, _NUMBER.sub("#", reason))
                found.setdefault(key, []).append((engine, point, reason))
    ordered = sorted(found.items(), key=lambda entry: -STATES.index(entry[0][0]))
    return [
        (state, _where([(engine.label, point.load) for engine, point, _ in hits]), _merged([why for *_, why in hits]))
        for (state, _), hits in ordered
    ]


def _where(places: list[tuple[str, Load]]) -> str:
    """`vllm at 1, 10 clients; transformers at 50 clients`."""
    texts = []
    for label in dict.fromkeys(label for label, _ in places):
        loads = list(dict.fromkeys(load for name, load in places if name == label))
        alike = len({kind for kind, _ in loads}) == 1
        before = ", ".join(f"{load[1]:g}" if alike else load_label(load) for load in loads[:-1])
        texts.append(f"{label} at {before}, {load_label(loads[-1])}")
    return "; ".join(texts).replace("at , ", "at ")


def _merged(texts: list[str]) -> str:
    """One text for several that differ in their numbers: `p99 of 17–88 requests`."""
    pieces = [_NUMBER.split(text) for text in texts]
    numbers = [_NUMBER.findall(text) for text in texts]
    merged = pieces[0][0]
    for i, between in enumerate(pieces[0][1:]):
        values = sorted({found[i] for found in numbers}, key=lambda text: float(text.replace(",", "")))
        merged += values[0] if len(values) == 1 else f"{values[0]}–{values[-1]}"
        merged += between
    return merged


def spread_text(pooled: Pooled) -> str:
    """`2 times: 33.1, 34.0` when it was measured several times, in rounds or after a start each."""
    values = [value for value in pooled.repeats if not math.isnan(value)]
    return f"{len(values)} times: {', '.join(map(number, values))}" if len(values) > 1 else ""


def definitions_used(report: Report) -> list[tuple[str, str, str]]:
    """(id, unit, text) of every definition behind a number of this report, and of how they were made."""
    used = {
        pooled.definition
        for model in report.comparison.models
        for numbers in (
            *(found.numbers for point in model.points for found in point.engines),
            *(foot.numbers for foot in model.footprints),
        )
        for pooled in numbers.values()
    }
    used |= {"percentile@1", "interval@1", "steady_window@1", "ratio@1"}
    return [(name, entry.unit, entry.text) for name, entry in DEFINITIONS.items() if name in used]
