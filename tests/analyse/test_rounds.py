"""A round holds the same numbers as the summary of the same load point."""

from __future__ import annotations

import pytest

from redline.analyse.rounds import measure_round
from redline.analyse.summary import summarise_point
from redline.spec.promise import Promise
from redline.store.requests import Requests
from tests.analyse.traffic import MS, Row, S, requests_of


def ramp() -> Requests:
    """Ten requests in the first second, a hundred in the second; each takes 60 ms."""
    due = [i * 100.0 for i in range(10)] + [1000 + i * 10.0 for i in range(100)]
    return requests_of(*(Row(at, chunks=[at + 20, at + 40, at + 60]) for at in due))


def test_a_load_that_changes_is_measured_from_end_to_end() -> None:
    requests, asked, hint = ramp(), ("stages", 1.0), (S, S + 2050 * MS)
    shown = summarise_point(
        requests, window_hint=hint, slo={}, attainment=0.95, outcome={}, seed=0, run_id="r", asked=asked
    )
    found = measure_round(requests, measured_from_ns=hint[0], ended_ns=hint[1], slo={}, asked=asked)
    for name in ("output_tokens_per_s", "requests_per_s"):
        assert found.numbers[name].value == pytest.approx(shown.value(name)), name


def test_a_request_is_good_by_the_promise_of_its_class() -> None:
    rows = [
        Row(i * 50.0, chunks=[i * 50.0 + late, i * 50.0 + late + 10], request_class=name)
        for i, (late, name) in enumerate([(30, "chat"), (300, "batch")] * 50)
    ]
    requests, hint = requests_of(*rows), (S, S + 5400 * MS)
    promises = {"chat": Promise({"ttft_ms": 20.0}, 0.95), "batch": Promise({"ttft_ms": 400.0}, 0.95)}
    shown = summarise_point(
        requests, window_hint=hint, slo={}, attainment=0.95, outcome={}, seed=0, run_id="r", promises=promises
    )
    found = measure_round(requests, measured_from_ns=hint[0], ended_ns=hint[1], slo={}, promises=promises)
    assert shown.value("slo_attainment") == 0.5
    assert found.shares["slo_attainment"] == (50, 100)
    assert found.numbers["goodput_per_s"].value == pytest.approx(shown.value("goodput_per_s"))
