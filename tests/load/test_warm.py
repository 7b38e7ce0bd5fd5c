"""The cold start is seen, waited out, and told."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.prompts import prompt_source
from redline.load.warm import ALIKE, Batch, alike, settled, settled_after
from tests.load.columns import reasons, verdict
from tests.load.servers import closed, push, workload


def batches(*rates: float) -> list[Batch]:
    return [Batch(4, 1000 / rate, rate) for rate in rates]


@pytest.mark.parametrize(
    ("rates", "is_settled", "after"),
    [
        ([80, 81, 79], True, 0),
        ([58.5, 83.3, 83.0, 83.5], True, 4),
        ([58.5, 70, 80, 83.3, 83.0, 83.5], True, 8),
        ([58.5, 70, 83.3], False, None),
        ([80, 60, 81, 60], False, None),
        ([80, 80], False, None),
    ],
)
def test_rule_by_hand(rates: list[float], is_settled: bool, after: int | None) -> None:
    assert settled(batches(*rates)) == is_settled
    if after is not None:
        assert settled_after(batches(*rates)) == after


@given(st.lists(st.floats(1, 1e4), max_size=12))
def test_what_is_settled_agrees_with_its_neighbours(rates: list[float]) -> None:
    made = batches(*rates)
    if settled(made):
        assert all(alike(one, other) for one, other in itertools.combinations(made[-ALIKE:], 2))
        assert 0 <= settled_after(made) <= sum(batch.requests for batch in made)


def test_a_cold_server_is_warmed_until_it_is_steady() -> None:
    """58.5 tok/s after "ready" and 83.3 later: a factor of 1.4 on everything, gone after 24 requests."""
    with PacedServer(Pace(ttft_ms=60, itl_ms=12, cold_requests=24, cold_factor=6)) as server:
        result = push(server, closed(4), requests=16, warmup_requests=0, warmup="stable", work=workload())
        warm = push(server, closed(4), requests=16, warmup_requests=0, warmup="stable", work=workload())
    told = result.outcome.warmup
    assert told["settled"]
    assert told["mode"] == "stable"
    assert 3 < told["cold_factor"] < 9
    assert 12 <= told["settled_after"] < told["requests"]  # by how much later is the box's to say
    assert told["first_tokens_per_s"] < 0.7 * told["settled_tokens_per_s"]
    assert sum(record.warmup for record in result.records) == told["requests"] >= 24
    ttft = sorted(record.chunk_ns[0] - record.sent_ns for record in result.measured)
    assert ttft[-1] < 6 * ttft[0]  # nothing of the cold start was measured
    assert warm.outcome.warmup["cold_factor"] < told["cold_factor"] / 2


def test_a_fixed_warm_up_measures_the_cold_start_and_does_not_claim_otherwise() -> None:
    with PacedServer(Pace(ttft_ms=60, itl_ms=5, cold_requests=40, cold_factor=6)) as server:
        result = push(server, closed(4), requests=16, warmup_requests=4, warmup="fixed", work=workload())
    told = result.outcome.warmup
    assert (told["mode"], told["settled"], told["requests"]) == ("fixed", False, 4)
    assert told["settled_after"] is None


def test_a_warm_up_that_never_settles_ends() -> None:
    with PacedServer(Pace(ttft_ms=30, itl_ms=2, cold_requests=2000, cold_factor=2000)) as server:
        work = workload(output_tokens={"mean": 2})
        result = push(
            server, closed(2), requests=2, warmup_requests=0, warmup="stable", warmup_s=0.2, work=work, timeout_s=1
        )
    assert not result.outcome.warmup["settled"]


@pytest.mark.parametrize("goes_cold", [True, False])
def test_a_server_that_goes_cold_when_idle_is_warmed_up_again(goes_cold: bool) -> None:
    """It was warm after the first point; what the second one measures is warm again, and what it had lost is known."""
    pace = Pace(ttft_ms=60, itl_ms=5, cold_requests=12, cold_factor=8, idle_cold_s=1.0 if goes_cold else 0.0)
    load: dict[str, Any] = {"requests": 16, "warmup_requests": 0, "warmup": "stable", "warmup_again_s": 1.2}
    load["work"] = workload()
    with PacedServer(pace) as server:
        prompts = prompt_source(server.endpoint, load["work"], seed=1, tokenizer_path=None, needed=100)
        first = push(server, closed(4), prompts=prompts, **load)
        time.sleep(1.5)
        second = push(server, closed(4), prompts=prompts, **load)
    assert not first.outcome.warmup["idled"]
    told = second.outcome.warmup
    assert told["idled"]
    assert told["idle_s"] >= 1.5
    assert told["requests"] >= 4 * ALIKE
    assert (told["cold_factor"] > 3) == goes_cold
    ttft = sorted(record.chunk_ns[0] - record.sent_ns for record in second.measured)
    assert ttft[len(ttft) // 2] < 3 * 60e6, "nothing of the second cold start was measured"
    said = [text for _, text in reasons(verdict(second), "idle for")]
    assert bool(said) == goes_cold
    assert not said or "warmed up again" in said[0]


def test_after_a_long_pause_an_automatic_warm_up_goes_on_until_it_is_steady() -> None:
    """Which is otherwise only done for servers that redline started."""
    load: dict[str, Any] = {"requests": 4, "warmup_requests": 0, "warmup_again_s": 0.1, "work": workload()}
    with PacedServer(Pace(ttft_ms=20, itl_ms=2)) as server:
        prompts = prompt_source(server.endpoint, load["work"], seed=1, tokenizer_path=None, needed=100)
        modes = []
        for _ in range(2):
            modes.append(push(server, closed(2), prompts=prompts, **load).outcome.warmup["mode"])
            time.sleep(0.2)
        fixed = push(server, closed(2), prompts=prompts, **{**load, "warmup_requests": 2})
    assert modes == ["fixed", "stable"]
    ((level, text),) = reasons(verdict(fixed), "idle for")
    assert (level, "fixed warm-up" in text) == ("valid", True)
