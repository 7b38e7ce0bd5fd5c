"""The verdict by what the calibration says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from redline.analyse.case import Case
from redline.analyse.latency import latencies_of
from redline.analyse.rules.calibrated import near_its_limit, not_calibrated, own_error
from redline.analyse.verdict import judge
from redline.analyse.window import SteadyWindow
from tests.analyse.traffic import Row, requests_of


def case(**outcome: Any) -> Case:
    requests = requests_of(Row(chunks=[10.0, 20.0]))
    return Case(requests, latencies_of(requests), SteadyWindow(0, 1, True), 1, outcome)


@pytest.mark.parametrize(
    ("ttft", "itl", "state"),
    [
        (0.01, -0.02, None),
        (0.06, 0.0, "degraded"),
        (0.0, -0.07, "degraded"),
        (0.0, 0.2, "client-bound"),
        (math.nan, 0.01, None),
    ],
)
def test_the_clients_own_error(ttft: float, itl: float, state: str | None) -> None:
    said = own_error(case(calibration={"ttft_p99_off": ttft, "itl_p99_off": itl}))
    assert (said[0] if said else None) == state


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"off": True}, ("valid", "not calibrated")),
        ({}, ("valid", "not calibrated")),
        ({"failed": "no paced server"}, ("degraded", "no paced server")),
        ({"requests": 0, "ttft_p99_off": math.nan}, ("valid", "no request finished")),
        ({"requests": 9, "ttft_p99_off": 0.0}, None),
        (None, None),
    ],
)
def test_that_nobody_knows_its_error_is_a_reason(known: Any, said: tuple[str, str] | None) -> None:
    found = not_calibrated(case(calibration=known))
    assert (found is None) == (said is None)
    assert found is None or said is None or (found[0] == said[0] and said[1] in found[1])


def test_a_reason_that_does_not_move_the_verdict_comes_last_and_is_kept() -> None:
    made = judge(case(calibration={"off": True}, stopped_by="interrupted"))
    assert made.state == "degraded"
    assert (made.levels[-1], "not calibrated" in made.reasons[-1]) == ("valid", True)


def test_an_answer_in_one_piece_has_no_first_token() -> None:
    said = own_error(case(calibration={"ttft_p99_off": 0.5, "streamed": False}))
    assert said is not None
    assert "E2E p99" in said[1]


def test_without_calibration_nothing_is_said() -> None:
    assert own_error(case()) is None
    assert near_its_limit(case(chunks_per_s=1e9)) is None


@pytest.mark.parametrize(("rate", "workers", "bound"), [(30_000, 1, False), (45_000, 1, True), (45_000, 2, False)])
def test_how_much_it_takes(rate: float, workers: int, bound: bool) -> None:
    said = near_its_limit(case(calibration={"sustains_chunks_per_s": 50_000}, chunks_per_s=rate, workers=workers))
    assert (said is not None) == bound
