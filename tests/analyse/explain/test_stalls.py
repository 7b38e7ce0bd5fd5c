from __future__ import annotations

import numpy as np
import pytest

from redline.analyse.explain.grid import Grid
from redline.analyse.explain.stalls import gaps_of, lost_time, stalls_of
from redline.store.from_records import columns_of
from tests.analyse.explain.streams import MS, STEP_NS, requests

PAUSE = (2_000 * MS, 2_400 * MS)


def test_a_pause_of_all_streams_is_one_joint_stall() -> None:
    found = requests(5, pauses=[PAUSE])
    gaps = gaps_of(found)
    (stall,) = stalls_of(gaps, found)
    assert stall.joint
    assert not stall.held
    assert (stall.streams, stall.of) == (4, 4)
    assert stall.began_ns == pytest.approx(PAUSE[0], abs=2 * STEP_NS)
    assert stall.ended_ns == pytest.approx(PAUSE[1], abs=2 * STEP_NS)
    assert gaps.joint.sum() == 4


def test_a_pause_of_one_stream_is_not_joint() -> None:
    found = requests(5, pauses=[PAUSE], one_stream=True)
    (stall,) = stalls_of(gaps_of(found), found)
    assert (stall.streams, stall.of, stall.joint) == (1, 4, False)


def test_tokens_that_come_together_after_a_gap_were_held_back() -> None:
    found = requests(5, held=[PAUSE])
    gaps = gaps_of(found)
    assert gaps.held.sum() == 4
    assert max(stalls_of(gaps, found), key=lambda one: one.ended_ns - one.began_ns).held
    assert not gaps_of(requests(5, pauses=[PAUSE])).held.any()


def test_jitter_is_no_stall_and_loses_nothing() -> None:
    found = requests(5, jitter=0.4)
    gaps = gaps_of(found)
    assert stalls_of(gaps, found) == []
    assert lost_time(gaps, found, Grid.over(0, int(5e9))).sum() == 0


def test_lost_time_is_where_the_pause_is_and_as_much() -> None:
    found = requests(5, pauses=[PAUSE])
    grid = Grid.over(0, int(5e9))
    lost = lost_time(gaps_of(found), found, grid)
    inside = (grid.seconds >= 2.02) & (grid.seconds < 2.38)
    assert lost[inside].min() > 0.9
    assert lost[(grid.seconds < 1.95) | (grid.seconds > 2.45)].max() == 0
    assert lost.sum() * grid.bucket_ns == pytest.approx(PAUSE[1] - PAUSE[0], rel=0.1)


def test_nothing_to_see_in_answers_of_one_chunk() -> None:
    found = requests(2, tokens=1)
    gaps = gaps_of(found)
    assert len(gaps.request) == 0
    assert stalls_of(gaps, found) == []
    assert lost_time(gaps, found, Grid.over(0, int(2e9))).tolist() == np.zeros(200).tolist()
    assert len(gaps_of(columns_of([])).request) == 0
