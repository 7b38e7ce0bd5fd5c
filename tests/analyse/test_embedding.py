"""Embeddings have one latency and no tokens: nothing that speaks of tokens may speak of them."""

from __future__ import annotations

import math

import pytest

from redline.analyse.latency import latencies_of
from redline.analyse.rules.asked import wrong_length
from redline.analyse.rules.outcome import no_tokens
from redline.analyse.summary import PointSummary, summarise_point
from redline.analyse.verdict import Case
from redline.analyse.window import find_window
from redline.store.requests import Requests
from tests.analyse.traffic import Row, ns, requests_of


def traffic(count: int = 200, finish: str = "embedding") -> Requests:
    """Two clients in a closed loop, 20 ms and 50 tokens each."""
    rows = [
        Row(
            intended=20 * (i // 2), sent=20 * (i // 2), finished=20 * (i // 2) + 20, prompt_tokens=50, output_tokens=0,
            asked_output_tokens=0, asked_prompt_tokens=50, finish_reason=finish,
        )
        for i in range(count)
    ]  # fmt: skip
    return requests_of(*rows)


def summary(requests: Requests) -> PointSummary:
    hint = (ns(0), ns(2000))
    return summarise_point(
        requests, window_hint=hint, slo={"e2e_ms": 30}, attainment=0.95, outcome={}, seed=1, run_id="r"
    )


def test_latency_is_e2e_and_there_is_no_other() -> None:
    found = summary(traffic())
    assert found.value("e2e_ms.p50") == pytest.approx(20)
    for name in ("ttft_ms.p50", "itl_ms.p50", "tpot_ms.p50"):
        assert math.isnan(found.value(name)), name
    assert found.verdict.state == "valid", found.verdict.reasons


def test_throughput_is_of_the_input() -> None:
    found = summary(traffic())
    assert found.value("input_tokens_per_s") == pytest.approx(5000, rel=0.05)
    assert found.value("requests_per_s") == pytest.approx(100, rel=0.05)
    assert found.value("goodput_per_s") == pytest.approx(100, rel=0.05)
    assert found.value("output_tokens_per_s") == 0
    assert found.value("total_tokens_per_s") == found.value("input_tokens_per_s")


@pytest.mark.parametrize(("finish", "said"), [("embedding", False), ("length", True)])
def test_rules_about_output_do_not_fire(finish: str, said: bool) -> None:
    requests = traffic(finish=finish)
    case = Case(requests, latencies_of(requests), find_window(requests, ns(0), ns(2000)), ns(2000), {})
    assert (no_tokens(case) is not None) is said
    assert wrong_length(case) is None
