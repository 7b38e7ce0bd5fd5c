"""The server's own account of each load point beside ours: where a request's time went, how full the server was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redline.report.model import Measured, ModelReport
from redline.report.numbers import number
from redline.report.quality import points
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

HEADS = (
    "engine", "load", "queue", "prefill", "decode", "TTFT, server", "TTFT, client", "running", "waiting", "KV cache",
    "preemptions", "prefix cache",
)  # fmt: skip


def server_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when no server said anything of itself."""
    shown, notes = [], []
    for label, load, one in points(models):
        told = one.outcome.get("server")
        if not isinstance(told, dict):
            continue
        if told.get("counters") is not None:
            shown.append((label, load, *_cells(told, one)))
        if told.get("note"):
            notes.append(f"{label}: {told['note']}")
        notes += [f"{label}: {text}" for text in _remarks(one)]
    if not shown:
        return None
    cost = _cost(models)
    about = "Means in ms, by the server's own counters over the point; TTFT of the client less that of the server is "
    return Section(
        "server",
        "The server's own account",
        HEADS,
        tuple(shown),
        (about + "the client and the network between them.", *dict.fromkeys(notes), *([cost] if cost else [])),
    )


def _cells(told: Mapping[str, Any], one: Measured) -> Iterator[str]:
    times, counters, gauges = told.get("times") or {}, told.get("counters") or {}, told.get("gauges") or {}
    for name in ("queue", "prefill", "decode", "ttft"):
        yield _ms((times.get(name) or {}).get("mean_ms"))
    yield _ms(one.summary.value("ttft_ms.ok.mean"))
    for name in ("running", "waiting"):
        gauge = gauges.get(name)
        yield f"{number(gauge['mean'])}, at most {gauge['max']:.0f}" if gauge else "–"
    usage = gauges.get("kv_usage")
    yield f"{usage['max']:.0%} at most" if usage else "–"
    yield f"{counters['preemptions']:.0f}" if "preemptions" in counters else "–"
    queries = counters.get("prefix_queries")
    yield f"{counters.get('prefix_hits', 0) / queries:.1%} hits" if queries else "–"


def _remarks(one: Measured) -> Iterator[str]:
    told = one.outcome.get("server") or {}
    counters = told.get("counters") or {}
    declared = one.outcome.get("cache") or {}
    if declared.get("declared") and not declared.get("told_by_usage") and "prefix_queries" not in counters:
        yield f"cache declared {declared['declared']}, which cannot be verified: neither usage nor counters tell"
    drafts = counters.get("draft_tokens")
    if drafts:
        yield f"{counters.get('accepted_tokens', 0) / drafts:.0%} of the drafted tokens were accepted"
    if counters.get("corrupted_requests"):
        yield f"the server counts {counters['corrupted_requests']:.0f} corrupted requests (NaN in the logits)"


def _cost(models: Sequence[ModelReport]) -> str:
    costs = [(one.outcome.get("server") or {}).get("scrape") or {} for _, _, one in points(models)]
    shares = [cost["share_of_time"] for cost in costs if cost.get("share_of_time") is not None]
    slowest = [cost["max_ms"] for cost in costs if cost.get("max_ms") is not None]
    if not shares or not slowest:
        return ""
    return f"Asking for /metrics took {max(shares):.1%} of the time at most, {max(slowest):.0f} ms at worst."


def _ms(value: float | None) -> str:
    return "–" if value is None or value != value else number(value)
