"""What another tool said of the load points that were imported from it, in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from redline.report.model import Measured, ModelReport, load_label
from redline.report.numbers import number
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

_HEADS = ("engine", "load", "of the tool's own summary", "value")
_SHOWN: dict[str, tuple[str, ...]] = {
    "vllm": ("request_throughput", "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_itl_ms"),
    "sglang": ("request_throughput", "output_throughput", "mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_itl_ms"),
    "guidellm": (
        "requests_per_second.successful.mean",
        "output_tokens_per_second.successful.mean",
        "time_to_first_token_ms.successful.mean",
        "time_to_first_token_ms.successful.percentiles.p99",
        "inter_token_latency_ms.successful.mean",
    ),
    "aiperf": (
        *("request_throughput.avg", "output_token_throughput.avg", "time_to_first_token.avg"),
        *("time_to_first_token.p99", "inter_token_latency.avg"),
    ),
    "inference-perf": (
        "successes.throughput.requests_per_sec",
        "successes.throughput.output_tokens_per_sec",
        "successes.latency.time_to_first_token.mean",
        "successes.latency.time_to_first_token.p99",
        "successes.latency.inter_token_latency.mean",
    ),
}


def imported_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when redline measured everything itself."""
    table: list[tuple[str, ...]] = []
    notes: dict[str, None] = {}
    for model in models:
        for engine in model.engines:
            for load, many in engine.points.items():
                for one in many:
                    table += [(engine.label, load_label(load), *cells) for cells in _cells(one)]
                    notes |= dict.fromkeys(f"{engine.label}: {note}" for note in _notes(one))
    return Section("imported", "Imported", _HEADS, tuple(table), tuple(notes), brief=True) if table or notes else None


def _cells(one: Measured) -> Iterator[tuple[str, str]]:
    found = one.outcome.get("imported") or {}
    for key in _SHOWN.get(str(found.get("tool")), ()):
        value: Any = found.get("summary")
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, (int, float)):
            yield key, number(float(value))


def _notes(one: Measured) -> list[str]:
    if "imported" not in one.outcome:
        return []
    missing = one.outcome.get("not_measured") or []
    said = [str(note) for note in one.outcome.get("notes") or ()]
    return [*said, *([f"not in the file: {', '.join(missing)}"] if missing else [])]
