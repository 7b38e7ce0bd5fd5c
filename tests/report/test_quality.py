"""Sections about the server's own account, the answers and the cold start, from outcomes as they are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from redline.report.model import ModelReport, Report
from redline.report.quality import quality_section, warmup_section
from redline.report.server import server_section

SERVER: dict[str, Any] = {
    "counters": {"prefix_hits": 64, "prefix_queries": 640, "preemptions": 2, "draft_tokens": 10, "accepted_tokens": 7},
    "times": {"queue": {"mean_ms": 1.5}, "prefill": {"mean_ms": 20.0}, "ttft": {"mean_ms": 22.0}},
    "gauges": {
        "running": {"min": 0, "mean": 3.2, "max": 4}, "waiting": {"min": 0, "mean": 0, "max": 0},
        "kv_usage": {"min": 0, "mean": 0.2, "max": 0.31},
    },
    "scrape": {"share_of_time": 0.01, "max_ms": 12.0},
}  # fmt: skip
CANARY: dict[str, Any] = {
    "compared": 8, "mismatched": 2, "agreed_share": 0.6, "logprob_drift": 0.02, "alone": 6, "asked_twice": 6,
    "unlike_alone": 0, "examples": [[1, " five", " fife"]],
}  # fmt: skip
WARMUP: dict[str, Any] = {
    "mode": "stable", "batches": [[4, 500, 10], [4, 60, 80]], "requests": 24, "seconds": 3.0, "settled": True,
    "settled_after": 12, "first_ttft_ms": 498.0, "settled_ttft_ms": 60.0, "cold_factor": 8.3,
}  # fmt: skip


def models(report: Report, **outcome: Any) -> list[ModelReport]:
    """The report's models, with this in the outcome of every point."""
    changed = []
    for model in report.models:
        engines = []
        for engine in model.engines:
            points = {
                load: tuple(replace(one, outcome=one.outcome | outcome) for one in many)
                for load, many in engine.points.items()
            }
            engines.append(replace(engine, points=points))
        changed.append(replace(model, engines=tuple(engines)))
    return changed


def test_the_servers_account(plain: Report) -> None:
    section = server_section(None, [], models(plain, server=SERVER))  # type: ignore[arg-type]
    assert section is not None
    row = dict(zip(section.heads, section.rows[0], strict=True))
    assert (row["queue"], row["prefill"], row["decode"], row["TTFT, server"]) == ("1.50", "20.0", "–", "22.0")
    assert row["running"] == "3.20, at most 4"
    assert row["KV cache"] == "31% at most"
    assert (row["preemptions"], row["prefix cache"]) == ("2", "10.0% hits")
    assert any("70% of the drafted tokens" in note for note in section.notes)
    assert any("1.0% of the time" in note for note in section.notes)


def test_no_server_said_anything(plain: Report) -> None:
    assert server_section(None, [], plain.models) is None  # type: ignore[arg-type]
    assert quality_section(None, [], plain.models) is None  # type: ignore[arg-type]
    assert warmup_section(None, [], plain.models) is None  # type: ignore[arg-type]


def test_a_cache_that_nobody_tells_of(plain: Report) -> None:
    told = {**SERVER, "counters": {"generation_tokens": 3}}
    section = server_section(None, [], models(plain, server=told, cache={"declared": "cold"}))  # type: ignore[arg-type]
    assert section is not None
    assert any("cannot be verified" in note for note in section.notes)


def test_quality(plain: Report) -> None:
    answers = {"measured": {"answers": 40, "garbled": 1, "looping": 0}}
    section = quality_section(None, [], models(plain, canary=CANARY, answers=answers))  # type: ignore[arg-type]
    assert section is not None
    assert section.rows[0][2] == "8"
    assert section.rows[0][3].startswith("75% [")
    assert section.rows[0][4:] == ("60% of the text", "0.020 nats", "1 of 40", "0 of 40")
    assert any("' five'" in note and "' fife'" in note for note in section.notes)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, "first answer 8.30× slower, settled after 12 requests"),
        ({"settled": False, "settled_after": None}, "the warm-up ended before it settled"),
    ],
)
def test_cold_start(plain: Report, change: dict[str, Any], wanted: str) -> None:
    section = warmup_section(None, [], models(plain, warmup=WARMUP | change))  # type: ignore[arg-type]
    assert section is not None
    assert any(wanted in note for note in section.notes)


def test_a_server_that_was_warm_is_no_news(plain: Report) -> None:
    section = warmup_section(None, [], models(plain, warmup=WARMUP | {"cold_factor": 1.1}))  # type: ignore[arg-type]
    assert section is not None
    assert section.notes == ()
