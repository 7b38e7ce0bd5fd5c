"""The server's own count of requests against ours, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from redline.analyse.case import Case
from redline.analyse.latency import latencies_of
from redline.analyse.rules.gone import busy_before, goes_on_for_the_gone
from redline.analyse.window import SteadyWindow
from tests.analyse.traffic import MS, Row, S, requests_of

IDLE = {"running": 0.0, "tokens": 0.0, "seconds": 0.1}
AT_WORK = {"running": 2.0, "tokens": 80.0, "seconds": 2.0}
STALE = {"running": 2.0, "tokens": 0.0, "seconds": 2.0}
NO_COUNTER = {"running": 2.0, "tokens": None, "seconds": 2.0}


def case(status: str = "abandoned", **server: Any) -> Case:
    """Two requests in flight from 0 to 4 s, one of which its client gave up; one more until 1 s."""
    requests = requests_of(
        Row(0, chunks=[100.0, 3900.0], finished=4000), Row(0, chunks=[100.0, 3900.0], finished=4000, status=status),
        Row(0, chunks=[100.0, 900.0], finished=1000),
    )  # fmt: skip
    return Case(requests, latencies_of(requests), SteadyWindow(S, 5 * S, True), 5 * S, {"server": server})


def looks(*running: float) -> list[list[float]]:
    return [[S + 2000 * MS + i * 200 * MS, S + 2005 * MS + i * 200 * MS, value] for i, value in enumerate(running)]


@pytest.mark.parametrize(
    ("flights", "speaks"),
    [
        (looks(2, 2, 2, 2, 2), False),
        (looks(3, 3, 3, 3, 3), True),
        (looks(2, 2, 9, 2, 2), False),  # a look of a moment
        (looks(3, 3, 3), False),  # too few
        ([[S + 800 * MS, S + 900 * MS, 3.0]] * 5, False),  # three are ours there
        ([[S + 1100 * MS, S + 1200 * MS, 3.0]] * 5, False),  # the third one's end is booked a little late
    ],
)
def test_more_in_the_server_than_in_flight(flights: list[list[float]], speaks: bool) -> None:
    assert (goes_on_for_the_gone(case(flights=flights)) is not None) == speaks
    assert goes_on_for_the_gone(case("ok", flights=flights)) is None, "nobody was given up"


@pytest.mark.parametrize(("rest", "speaks"), [(IDLE, False), (AT_WORK, True), (STALE, False), (NO_COUNTER, False)])
def test_what_is_left_and_what_was_found(rest: dict[str, Any], speaks: bool) -> None:
    assert (goes_on_for_the_gone(case("cancelled", left=rest)) is not None) == speaks
    assert goes_on_for_the_gone(case("ok", left=rest)) is None
    assert (busy_before(case("ok", found=rest)) is not None) == speaks


def test_without_metrics_nothing_is_said() -> None:
    assert goes_on_for_the_gone(case(note="the server has no /metrics")) is None
    assert busy_before(case()) is None
