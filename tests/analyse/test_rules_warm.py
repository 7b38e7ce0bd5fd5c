from __future__ import annotations

from typing import Any

import pytest

from redline.analyse.case import Case
from redline.analyse.latency import latencies_of
from redline.analyse.rules.warm import idle_before
from redline.analyse.window import SteadyWindow
from tests.analyse.traffic import Row, requests_of

TOLD = {
    "idled": True, "idle_s": 130.0, "mode": "stable", "settled": True, "seconds": 15.0, "requests": 24,
    "first_ttft_ms": 90.0, "settled_ttft_ms": 30.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({}, "valid", "3.0 times as slow as after 24 requests"),
        ({"first_ttft_ms": 40.0}, "", ""),
        ({"first_ttft_ms": 4.0, "settled_ttft_ms": 1.0}, "", ""),  # three milliseconds are nobody's cold start
        ({"settled": False}, "degraded", "did not settle again in a warm-up of 15 s"),
        ({"mode": "fixed", "settled": False}, "valid", "--warmup stable"),
        ({"idled": False, "settled": False}, "", ""),
        ({"first_ttft_ms": None}, "", ""),
    ],
)
def test_what_a_pause_did(change: dict[str, Any], level: str, words: str) -> None:
    requests = requests_of(Row(chunks=[10.0, 20.0]))
    said = idle_before(Case(requests, latencies_of(requests), SteadyWindow(0, 1, True), 1, {"warmup": TOLD | change}))
    assert (said[0] if said else "") == level
    assert said is None or (words in said[1] and "idle for 130 s" in said[1])
