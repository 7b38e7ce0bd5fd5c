from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.percentile import percentile
from redline.load.crew import LoadWorker
from redline.load.frames import Arrivals, Outgoing, Phase, PhaseDone, Target
from redline.load.lag import LoopLag, bucket, upper_ns
from redline.load.paced.server import PacedServer
from redline.load.target import resolve
from redline.load.timer import Agenda
from tests.load.servers import fast


@given(st.integers(0, 10**13))
def test_a_bucket_holds_its_lag_and_is_an_eighth_wide_at_most(lag_ns: int) -> None:
    index = bucket(lag_ns)
    assert upper_ns(index - 1) <= lag_ns < upper_ns(index) if index else lag_ns < upper_ns(0)
    assert upper_ns(index) <= max(lag_ns * 1.13, lag_ns + 1_000)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_percentiles_are_never_too_low_and_little_too_high(lags: list[int], level: float) -> None:
    agenda = Agenda()
    kept = LoopLag(agenda)
    for lag in lags:
        kept.add(lag)
    agenda.timer.close()
    true = percentile(np.array(lags, dtype=float), level) / 1e6
    assert true <= kept.at_ms(level) + 1e-9
    assert kept.at_ms(level) <= max(true * 1.13, true + 0.001) + 1e-9
    assert kept.max_ms == max(lags) / 1e6


def test_nothing_before_the_first_beat_and_after_a_new_start() -> None:
    agenda = Agenda()
    kept = LoopLag(agenda)
    assert (kept.at_ms(0.99), kept.max_ms) == (0.0, 0.0)
    time.sleep(0.05)
    agenda.run_due()
    assert kept.max_ms > 5
    kept.start_over()
    assert (kept.at_ms(0.5), kept.max_ms) == (0.0, 0.0)
    agenda.timer.close()


@pytest.fixture(scope="module")
def server() -> Iterator[PacedServer]:
    with PacedServer(fast()) as made:
        yield made


def lag_of(server: PacedServer, **plant: float) -> PhaseDone:
    target: Target = resolve(server.base_url)
    for name, value in plant.items():
        setattr(target, name, value)
    with LoadWorker(target) as worker:
        worker.start(Phase(Arrivals.OPEN, offsets_ns=[600_000_000], requests=1))
        worker.feed([Outgoing(0, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")])
        while True:
            for heard in worker.hear(0.5):
                if isinstance(heard, PhaseDone):
                    return heard


def test_a_client_that_freezes_says_so(server: PacedServer) -> None:
    calm, frozen = lag_of(server).tick, lag_of(server, stall_every_ms=30.0, stall_ms=25.0).tick
    assert frozen.loop_lag_ms_p99 > 8
    assert frozen.loop_lag_ms_p99 > 2 * calm.loop_lag_ms_p50  # a box that is busy makes the calm one's tail late too
    assert frozen.loop_lag_ms_max >= frozen.loop_lag_ms_p99 >= frozen.loop_lag_ms_p50
