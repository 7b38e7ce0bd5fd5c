from __future__ import annotations

import numpy as np
import pytest

from redline.analyse.explain.shares import PARTS, EngineMeans, EngineTimes, Shares, shares_of, slow_rows
from redline.analyse.explain.stalls import gaps_of, stalls_of
from redline.store.requests import Requests
from tests.analyse.explain.streams import MS, STEP_NS, requests

PAUSE = (2_000 * MS, 2_400 * MS)


def shares(found: Requests, **more: object) -> Shares:
    gaps = gaps_of(found)
    return shares_of(found, gaps, stalls_of(gaps, found), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["pauses", "held"])
def test_they_sum_to_the_whole(how: str) -> None:
    told = shares(requests(5, **{how: [PAUSE]}))  # type: ignore[arg-type]
    assert sum(told.parts[name] for name in PARTS) == pytest.approx(told.total_ns)
    assert sum(told.of(np.ones(len(told.index), np.bool_)).values()) == pytest.approx(1)
    assert all(part.min() > -1e-3 for part in told.parts.values())


def test_a_pause_is_a_stall_and_what_was_held_back_is_the_networks() -> None:
    stalled, held = shares(requests(5, pauses=[PAUSE])), shares(requests(5, held=[PAUSE]))
    lost = PAUSE[1] - PAUSE[0] - STEP_NS
    assert stalled.parts["stall"].sum() == pytest.approx(4 * lost, rel=0.05)
    assert stalled.parts["network"].sum() == 0
    assert held.parts["network"].sum() == pytest.approx(4 * lost, rel=0.1)
    assert held.parts["stall"].sum() < 0.15 * held.parts["network"].sum()  # of one token alone nobody can tell
    assert stalled.parts["decode"] == pytest.approx(np.full(len(stalled.index), 49.0 * STEP_NS), rel=0.03)


def test_spans_tell_queue_from_prefill_and_the_way() -> None:
    found = requests(3)
    index = int(found.index[5])
    arrived = int(found.sent_ns[5]) + 2 * MS
    told = shares(found, engine={index: EngineTimes(arrived, 11 * MS, 9 * MS)})
    wait = float(found.earliest_ns[5] - found.sent_ns[5])
    assert told.parts["queue"][5] == 11 * MS
    assert told.parts["prefill"][5] == 9 * MS
    assert told.parts["network"][5] == pytest.approx(wait - 20 * MS)
    assert (told.basis[5], told.basis[4]) == (0, 2)


def test_means_are_dealt_out_to_who_waited_beyond_a_fast_start() -> None:
    """Every fifth request waits 100 ms more."""
    found = requests(8, wait_of=lambda index: (130 if index % 5 == 0 else 30) * MS)
    late = found.index % 5 == 0
    told = shares(found, means=EngineMeans(queue_ms=float(100 * late.mean()), prefill_ms=28.0))
    assert told.parts["queue"][late] == pytest.approx(np.full(late.sum(), 100.0 * MS), rel=0.02)
    assert told.parts["queue"][~late].max() < MS
    assert told.parts["prefill"].mean() == pytest.approx(28 * MS, rel=0.01)
    unknown = shares(found)
    assert unknown.parts["queue"].sum() == 0
    assert unknown.parts["unexplained"][late] == pytest.approx(np.full(late.sum(), 100.0 * MS), rel=0.02)


def test_a_request_that_waits_during_a_stall_of_all_is_stalled() -> None:
    """One waits for its first token while the others stand still."""
    found = requests(5, pauses=[PAUSE], wait_ns=120 * MS)
    told = shares(found)
    waiting = (found.sent_ns < PAUSE[0]) & (found.earliest_ns > PAUSE[1])
    assert waiting.any()
    assert told.parts["stall"][waiting].min() > 200 * MS


def test_late_sends_are_the_clients_and_new_connections_the_networks() -> None:
    found = requests(3)
    columns = {name: getattr(found, name) for name in Requests.__dataclass_fields__}
    late = Requests(**columns | {"intended_ns": found.intended_ns - 40 * MS})
    assert shares(late).parts["client"].min() >= 40 * MS
    fresh = Requests(**columns | {"intended_ns": found.intended_ns - 40 * MS, "connected_ns": found.sent_ns - MS // 10})
    told = shares(fresh, lag_ns=5.0 * MS)
    assert told.parts["network"] == pytest.approx(np.full(len(fresh), 35.0 * MS))


def test_slow_is_slow_for_its_length() -> None:
    found = requests(20, pauses=[PAUSE], jitter=0.2)
    told = shares(found)
    slow = slow_rows(found, told)
    hit = told.parts["stall"] > 300 * MS
    assert hit.any()
    assert (slow == hit).all()
    assert not slow_rows(requests(20, jitter=0.2), shares(requests(20, jitter=0.2))).any()
