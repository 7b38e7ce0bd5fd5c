from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.window import Steps, find_window, in_flight
from redline.store.requests import Requests
from tests.analyse.traffic import MS, Row, S, closed_loop, ns, requests_of


def test_in_flight_by_hand() -> None:
    steps = in_flight(requests_of(Row(0, chunks=[10]), Row(5, chunks=[20]), Row(10, chunks=[30])), S)
    # at 10 one ends and one begins
    assert [(t - S) // MS for t in steps.t_ns.tolist()] == [0, 5, 10, 20, 30]
    assert steps.level.tolist() == [1, 2, 2, 1, 0]
    assert steps.mean(ns(0), ns(30)) == pytest.approx((5 * 1 + 5 * 2 + 10 * 2 + 10 * 1) / 30)
    assert steps.mean(ns(5), ns(10)) == 2
    assert steps.median(ns(0), ns(30)) in (1, 2)


def test_a_request_without_an_end_stays_in_flight_until_the_point_ended() -> None:
    steps = in_flight(requests_of(Row(0, status="cancelled")), ns(100))
    assert steps.mean(ns(0), ns(100)) == 1


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), min_size=1, max_size=30))
def test_in_flight_conserves_time(spans: list[tuple[int, int]]) -> None:
    made = requests_of(*[Row(start, chunks=[start + took]) for start, took in spans])
    steps = in_flight(made, S)
    assert (steps.level >= 0).all()
    assert steps.level[-1] == 0
    total = steps.mean(ns(0), ns(200)) * 200
    assert total == pytest.approx(sum(took for _, took in spans))


def test_levels_outside_the_steps_are_empty() -> None:
    steps = Steps(np.array([], np.int64), np.array([], np.int64))
    assert steps.median(0, 10) == 0


def test_the_drain_is_cut() -> None:
    made, (start, _) = closed_loop(10, duration_ms=5000)
    # one straggler: it alone keeps the point going for three more seconds
    straggler = requests_of(Row(4900, chunks=[8500]))
    rows = [made, straggler]
    joined = join(*rows)
    window = find_window(joined, start, int(joined.finished_ns.max()))
    assert window.found
    assert window.plateau == 10
    assert window.start_ns == start
    assert ns(4900) < window.end_ns < ns(5800)


def test_ramp_and_drain_by_hand() -> None:
    """Ten clients, one more every 100 ms, four requests of a second each: too few for the token rate to say more."""
    rows = [
        Row(100 * client + 1000 * i, chunks=[100 * client + 1000 * (i + 1)]) for client in range(10) for i in range(4)
    ]
    window = find_window(requests_of(*rows), S, ns(4900))
    assert window.plateau == 10
    assert (window.start_ns, window.end_ns) == (ns(800), ns(4100))  # nine of ten are in flight


def test_the_ramp_is_cut() -> None:
    # 20 clients, one more every 200 ms; each asks again and again for 10 s
    rows = [
        Row(at, chunks=[at + 100 * i for i in range(1, 11)])
        for client in range(20)
        for at in range(client * 200, 10_000, 1000)
    ]
    window = find_window(requests_of(*sorted(rows, key=lambda row: row.intended)), S, ns(12_000))
    assert window.found
    assert (window.start_ns - S) / MS == pytest.approx(17 * 200, abs=250)  # 18 of 20 are there


def test_a_slow_start_is_cut_by_the_token_rate() -> None:
    """All clients are in flight from the start, but for the first three seconds tokens come five times slower."""
    rows = []
    for client in range(8):
        now = 0.0
        while now < 15_000:
            gap = 50 if now < 3000 else 10
            rows.append(Row(now, chunks=[now + gap * (i + 1) + client for i in range(10)]))
            now += gap * 10 + client + 0.1
    window = find_window(requests_of(*sorted(rows, key=lambda row: row.intended)), S, ns(15_200))
    assert window.found
    assert 2500 <= (window.start_ns - S) / MS <= 4000
    assert (window.end_ns - S) / MS > 14_500


def test_both_edges_are_cut_by_the_token_rate() -> None:
    """All clients are in flight from end to end; tokens come five times slower in the first and the last seconds."""
    rows = []
    for client in range(8):
        now = 0.0
        while now < 18_000:
            gap = 50 if now < 3000 or now > 15_000 else 10
            rows.append(Row(now, chunks=[now + gap * (i + 1) + client for i in range(10)]))
            now += gap * 10 + client + 0.1
    window = find_window(requests_of(*sorted(rows, key=lambda row: row.intended)), S, ns(18_500))
    assert window.found
    assert 2500 <= (window.start_ns - S) / MS <= 4000
    assert 14_000 <= (window.end_ns - S) / MS <= 15_700


def test_both_edges_are_cut_by_requests_in_flight() -> None:
    """Twelve clients that come one by one and leave one by one, tokens at one rate each all the time."""
    rows = [
        Row(at, chunks=[at + 50 * i for i in range(1, 11)])
        for client in range(12)
        for at in range(client * 200, 8_000 + client * 200, 500)
    ]
    window = find_window(requests_of(*sorted(rows, key=lambda row: row.intended)), S, ns(11_000))
    assert window.found
    assert window.plateau == 12
    assert 1_900 <= (window.start_ns - S) / MS <= 2_400  # eleven of twelve are there
    assert 8_000 <= (window.end_ns - S) / MS <= 8_700


def test_a_request_s_own_rhythm_is_no_trend() -> None:
    """One client: a long prompt phase, then tokens. Cutting the first prompt phase would flatter the rate."""
    rows = [Row(at, chunks=[at + 400 + 10 * i for i in range(10)]) for at in range(0, 10_000, 500)]
    window = find_window(requests_of(*rows), S, ns(10_000))
    assert window.found
    assert window.start_ns == S
    assert (window.end_ns - S) / MS == pytest.approx(9990, abs=1)


def test_an_overload_has_no_steady_state() -> None:
    """Open loop: 50 requests a second arrive, 20 are served."""
    rows = [Row(i * 20, chunks=[i * 50 + 40.0, i * 50 + 50.0]) for i in range(300)]
    window = find_window(requests_of(*rows), S, ns(15_100))
    assert not window.found
    assert window.growing
    assert "grow" in window.note


def test_a_load_that_is_kept_up_with_is_steady() -> None:
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(20):
        starts = np.cumsum(rng.exponential(20, 500))
        rows = [Row(at, chunks=[at + 100, at + 200]) for at in starts]
        window = find_window(requests_of(*rows), S, ns(starts[-1] + 200))
        assert window.found, window.note
        assert not window.growing
        shares.append(window.seconds / (starts[-1] / 1000))
    assert min(shares) > 0.6
    assert np.median(shares) > 0.9


def test_a_single_burst_says_so() -> None:
    window = find_window(requests_of(*[Row(0, chunks=[100, 200]) for _ in range(10)]), S, ns(200))
    assert "burst" in window.note


@pytest.mark.parametrize("rows", [[], [Row(0, sent=None, status="connect", finished=1)]])
def test_nothing_sent(rows: list[Row]) -> None:
    made = requests_of(*rows)
    made.sent_ns[:] = 0
    window = find_window(made, S, S + 10)
    assert not window.found
    assert window.seconds == 0


@given(st.integers(1, 6), st.integers(0, 5000))
def test_the_window_moves_with_time_and_stays_inside(clients: int, shift: int) -> None:
    made, (start, end) = closed_loop(clients, duration_ms=2000, output_tokens=8)
    window = find_window(made, start, end)
    assert start <= window.start_ns <= window.end_ns <= end
    rows = [
        Row(at / MS + shift, chunks=[(t - S) / MS + shift for t in made.chunk_ns[a:b]])
        for at, a, b in zip((made.intended_ns - S).tolist(), made.chunk_start, made.chunk_start[1:], strict=False)
    ]
    moved = find_window(requests_of(*rows), start + shift * MS, end + shift * MS)
    assert moved.start_ns - window.start_ns == pytest.approx(shift * MS, abs=2)
    assert moved.end_ns - window.end_ns == pytest.approx(shift * MS, abs=2)


def join(*parts: Requests) -> Requests:
    """Requests one after the other."""
    columns = {}
    for field in fields(Requests):
        columns[field.name] = np.concatenate([getattr(part, field.name) for part in parts])
    starts = [0]
    for part in parts:
        starts.extend((part.chunk_start[1:] + starts[-1]).tolist())
    columns["chunk_start"] = np.array(starts, np.int64)
    return Requests(**columns)
