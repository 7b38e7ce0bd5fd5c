"""The steady window where nothing holds the number in flight: sparse, bursty and long requests of an open loop."""

from __future__ import annotations

import numpy as np
import pytest

from redline.analyse.arrivals import arrivals_of
from redline.analyse.percentile import Floats
from redline.analyse.window import SteadyWindow, find_window
from redline.store.requests import Requests
from tests.analyse.traffic import Row, S, ns, requests_of


def served(arrivals_ms: Floats, service_ms: float, tokens: int = 32, seed: int = 0) -> Requests:
    """Every request is answered within about `service_ms`, however many there are at once."""
    rng = np.random.default_rng(seed)
    rows = []
    for at in arrivals_ms.tolist():
        took = service_ms * rng.lognormal(0, 0.1)
        rows.append(Row(at, chunks=np.linspace(at + took / 5, at + took, tokens).tolist()))
    return requests_of(*rows)


def window_of(requests: Requests) -> SteadyWindow:
    return find_window(requests, S, int(requests.finished_ns.max()))


def rate(requests: Requests, window: SteadyWindow) -> float:
    return float(arrivals_of(requests).counts(window.start_ns, window.end_ns, 1)[0]) / window.seconds


@pytest.mark.parametrize("seed", range(8))
def test_a_burst_is_not_taken_for_the_whole(seed: int) -> None:
    """Gamma arrivals with a coefficient of variation of 3: the busiest stretch would double the rate."""
    arrivals = np.cumsum(np.random.default_rng(seed).gamma(1 / 9, 9 * 125, 240))
    requests = served(arrivals, 1000)
    window = window_of(requests)
    assert window.found
    assert window.seconds > 0.8 * (arrivals[-1] - arrivals[0]) / 1000
    assert rate(requests, window) == pytest.approx(240 * 32 / ((arrivals[-1] - arrivals[0]) / 1000), rel=0.15)


@pytest.mark.parametrize("seed", range(8))
def test_sparse_arrivals_are_steady(seed: int) -> None:
    """One request a second that takes 0.3 s: usually none is in flight."""
    window = window_of(served(np.cumsum(np.random.default_rng(seed).exponential(1000, 30)), 300))
    assert window.found, window.note


def test_on_and_off_is_no_plateau() -> None:
    arrivals = np.concatenate([5000 * k + np.linspace(0, 2000, 40) for k in range(6)])
    requests = served(arrivals, 500)
    window = window_of(requests)
    assert window.found
    assert window.seconds > 0.9 * 27
    assert rate(requests, window) == pytest.approx(8 * 32, rel=0.2)


def test_requests_that_outlive_their_arrivals_are_no_overload() -> None:
    """Two a second, each 15 s long: requests in flight grow because none has ended yet, not for want of speed."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(500, 20))
    window = window_of(served(arrivals, 15_000, 300))
    assert not window.growing
    assert "too short for a steady state" in window.note or "a burst more than a steady state" in window.note


def test_an_overload_is_still_one() -> None:
    """Eight a second arrive, six are served, each in a second."""
    free = [0.0] * 6
    rows = []
    for at in np.cumsum(np.random.default_rng(1).exponential(125, 200)).tolist():
        begin = max(at, min(free))
        free[free.index(min(free))] = begin + 1000
        rows.append(Row(at, chunks=np.linspace(begin + 200, begin + 1000, 32).tolist()))
    assert window_of(requests_of(*rows)).growing


def test_the_first_lifetime_is_left_out() -> None:
    """A constant rate: in flight climbs for as long as the first request lives."""
    requests = served(np.arange(0, 20_000, 250.0), 4000)
    window = window_of(requests)
    assert window.start_ns > ns(2800)
    assert window.end_ns < ns(21_500)
    assert rate(requests, window) == pytest.approx(4 * 32, rel=0.05)
