from __future__ import annotations

import math

import numpy as np
import pytest

from redline.analyse.comparison import EnginePoint, Pooled
from redline.analyse.cost import attained, best_at_slo, costs_of, energy_joules, idle_share
from redline.analyse.finding import Interval, Verdict
from redline.analyse.window import SteadyWindow
from tests.analyse.traffic import MS, Row, S, requests_of


def point(output: float = 1000.0, total: float = 3000.0, requests: float = 10.0, *, good: float = math.nan,
          counted: int = 500, state: str = "valid") -> EnginePoint:  # fmt: skip
    def pooled(name: str, value: float, wide: float = 0.1) -> Pooled:
        return Pooled(name, value, "", f"{name}@1", Interval(value * (1 - wide), value * (1 + wide)))

    numbers = {
        "output_tokens_per_s": pooled("output_tokens_per_s", output),
        "total_tokens_per_s": pooled("total_tokens_per_s", total),
        "requests_per_s": pooled("requests_per_s", requests),
    }
    if not math.isnan(good):
        numbers["slo_attainment"] = pooled("slo_attainment", good)
    return EnginePoint("e", numbers, {"counted": counted}, Verdict(state))


def test_against_the_bill_by_hand() -> None:
    # 3.60 an hour is a thousandth a second; 1000 tokens a second make a million in 1000 s: 1.00
    found = costs_of(point(), 3.6 / 3600)
    assert found["cost_per_million_output_tokens"].value == pytest.approx(1.0)
    assert found["cost_per_million_input_tokens"].value == pytest.approx(0.5)
    assert found["cost_per_thousand_requests"].value == pytest.approx(0.1)
    band = found["cost_per_million_output_tokens"].interval
    assert band is not None
    assert band.low == pytest.approx(1 / 1.1)
    assert band.high == pytest.approx(1 / 0.9)


def test_nothing_served_costs_without_end() -> None:
    assert costs_of(point(output=0.0), 1.0)["cost_per_million_output_tokens"].value == math.inf


def test_the_best_point_keeps_the_promise_for_sure() -> None:
    points = {
        ("closed", 1.0): point(output=100, good=1.0),
        ("closed", 4.0): point(output=400, good=0.99),
        ("closed", 8.0): point(output=800, good=0.955),  # above 95 %, but its lower bound is not
        ("closed", 16.0): point(output=900, good=0.99, state="client-bound"),
    }
    assert attained(points["closed", 8.0]) < 0.95 < 0.955
    assert best_at_slo(points, 0.95) == ("closed", 4.0)
    assert best_at_slo({("closed", 1.0): point()}, 0.95) is None
    assert best_at_slo({}, 0.95) is None


def test_idle_time_is_what_no_request_covers() -> None:
    requests = requests_of(Row(0, chunks=[100]), Row(300, chunks=[400]), Row(350, chunks=[500]))
    window = SteadyWindow(S, S + 500 * MS, True)
    assert idle_share(requests, window, S + 500 * MS) == pytest.approx(0.4)
    assert math.isnan(idle_share(requests, SteadyWindow(S, S, False), S))


def test_energy_is_the_area_under_the_power() -> None:
    t = np.arange(0, 11, dtype=np.int64) * S
    ramp = (t, np.linspace(0, 200, 11))
    assert energy_joules([ramp], 0, 10 * S) == pytest.approx(1000)
    assert energy_joules([ramp, (t, np.full(11, 50.0))], 0, 10 * S) == pytest.approx(1500)
    assert math.isnan(energy_joules([], 0, 10 * S))
    assert math.isnan(energy_joules([(t[:5], np.ones(5))], 0, 10 * S)), "half of the time was not sampled"
