from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from redline.load.frames import Target
from redline.load.linger import Linger

_MS = 1_000_000
_SECOND = 1_000 * _MS


def _conns(streaming: int, silent: int = 0) -> Any:
    return [SimpleNamespace(data=[b"x"])] * streaming + [SimpleNamespace(data=[])] * silent


def _after_a_second(chunks_per_s: int, streaming: int, silent: int = 0, **bounds: int) -> int:
    linger = Linger(cast(Target, SimpleNamespace(**{"linger_ns": _MS, "linger_most_ns": 4 * _MS, **bounds})))
    linger.reads = chunks_per_s
    linger.adapt(_conns(streaming, silent), _SECOND)
    assert linger.reads == 0
    return linger.ns


@pytest.mark.parametrize(
    ("gap_ms", "rests_ms"),
    [(1, 1.0), (4, 1.0), (8, 2.0), (12, 3.0), (16, 4.0), (200, 4.0)],
)
def test_a_worker_rests_for_a_quarter_of_the_gap_between_chunks(gap_ms: int, rests_ms: float) -> None:
    streams = 80
    rest = _after_a_second(streams * 1000 // gap_ms, streams)
    assert rest / _MS == pytest.approx(rests_ms, rel=0.02)
    # streams that have brought nothing yet would make the gap look longer than it is
    assert _after_a_second(streams * 1000 // gap_ms, streams, silent=1000) == rest


def test_nothing_that_streams_is_no_reason_to_sleep_long() -> None:
    assert _after_a_second(0, 0) == _MS


def test_where_requests_wait_for_answers_the_rest_stays_short_and_without_a_ring_there_is_none() -> None:
    assert _after_a_second(100, 100, linger_ns=_MS // 2, linger_most_ns=0) == _MS // 2
    assert _after_a_second(100, 100, linger_ns=0, linger_most_ns=0) == 0
