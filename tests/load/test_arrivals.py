from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.load.arrivals import client_levels, schedule, stage_schedule
from redline.spec.load import LoadPoint
from redline.spec.stages import StageSpec

S = 1_000_000_000
Random = Literal["poisson", "gamma"]


def test_constant_is_exact() -> None:
    offsets = schedule(LoadPoint("constant", 8), seed=1, duration_s=2)
    assert offsets == [i * S // 8 for i in range(16)]


@pytest.mark.parametrize("rate", [0.1, 3, 7, 33.3])
def test_constant_has_as_many_as_fit(rate: float) -> None:
    offsets = schedule(LoadPoint("constant", rate), seed=1, duration_s=10)
    assert len(offsets) == -(-rate * 10 // 1)
    assert max(offsets) < 10 * S


@given(
    st.sampled_from(["poisson", "gamma"]),
    st.floats(0.05, 20),
    st.floats(0.5, 500),
    st.integers(0, 1000),
    st.floats(0.5, 20),
    st.integers(0, 50),
)
def test_random_arrivals_keep_their_promises(
    kind: Random, shape: float, rate: float, seed: int, duration_s: float, requests: int
) -> None:
    point = LoadPoint(kind, rate)
    offsets = schedule(point, seed=seed, duration_s=duration_s, requests=requests, burstiness=shape)
    everything = schedule(point, seed=seed, duration_s=duration_s, burstiness=shape)
    assert offsets == sorted(offsets)
    assert all(0 <= offset < duration_s * S for offset in offsets)
    assert offsets == (everything[:requests] if requests else everything)  # a limit cuts, it does not change


def test_poisson_is_poisson() -> None:
    offsets = schedule(LoadPoint("poisson", 200), seed=3, duration_s=100)
    gaps = [b - a for a, b in itertools.pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(S / 200, rel=0.03)
    assert spread / mean == pytest.approx(1, rel=0.05)  # exponential: as wide as it is long


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0, 25.0])
def test_gamma_gaps_have_the_mean_and_the_spread_of_their_shape(shape: float) -> None:
    offsets = schedule(LoadPoint("gamma", 200), seed=5, duration_s=200, burstiness=shape)
    gaps = np.diff(offsets)
    assert gaps.mean() == pytest.approx(S / 200, rel=0.04)
    assert gaps.std() / gaps.mean() == pytest.approx(shape**-0.5, rel=0.07)


def test_bursty_arrivals_keep_their_rate_on_average() -> None:
    """A burst more likely begins before the point than with it: without that, ten arrivals would be fourteen."""
    counts = [len(schedule(LoadPoint("gamma", 10), seed=seed, duration_s=1, burstiness=0.1)) for seed in range(3000)]
    assert np.mean(counts) == pytest.approx(10, rel=0.06)


@pytest.mark.parametrize("kind", ["poisson", "gamma"])
def test_the_seed_decides(kind: Random) -> None:
    point = LoadPoint(kind, 10)
    assert schedule(point, seed=1, duration_s=5) == schedule(point, seed=1, duration_s=5)
    assert schedule(point, seed=1, duration_s=5) != schedule(point, seed=2, duration_s=5)


stage_lists = st.lists(
    st.builds(
        StageSpec,
        rate=st.floats(0, 200),
        to=st.none() | st.floats(0, 200),
        duration_s=st.floats(0.1, 5),
        arrivals=st.sampled_from(["poisson", "constant", "gamma"]),
    ),
    min_size=1,
    max_size=4,
)


@given(stage_lists, st.integers(0, 1000), st.integers(0, 50))
@settings(deadline=None)
def test_a_stage_schedule_rises_and_stays_inside(stages: list[StageSpec], seed: int, requests: int) -> None:
    offsets = stage_schedule(stages, seed=seed, requests=requests)
    everything = stage_schedule(stages, seed=seed)
    assert everything == sorted(everything)
    assert all(0 <= offset <= sum(s.duration_s for s in stages) * S for offset in everything)
    assert offsets == (everything[:requests] if requests else everything)


def test_a_level_stage_is_the_same_as_a_level_point() -> None:
    stages = [StageSpec(rate=30, duration_s=4), StageSpec(rate=30, duration_s=6)]
    assert stage_schedule(stages, seed=9) == pytest.approx(
        schedule(LoadPoint("poisson", 30), seed=9, duration_s=10), abs=2
    )


def test_a_constant_ramp_is_where_the_integral_of_the_rate_says() -> None:
    """0 → 10 per second in 10 s is t²/2: request n is due at sqrt(2n)."""
    offsets = stage_schedule([StageSpec(rate=0, to=10, duration_s=10, arrivals="constant")], seed=1)
    assert len(offsets) == 50
    assert offsets == pytest.approx([(2 * n) ** 0.5 * S for n in range(50)], abs=2)


def test_a_ramp_down_and_a_pause() -> None:
    stages = [
        StageSpec(rate=20, to=0, duration_s=2, arrivals="constant"),
        StageSpec(rate=0, duration_s=5),
        StageSpec(rate=10, duration_s=1, arrivals="constant"),
    ]
    offsets = stage_schedule(stages, seed=1)
    assert len(offsets) == 30
    assert not [offset for offset in offsets if 2 * S <= offset < 7 * S]


@pytest.mark.parametrize("arrivals", ["poisson", "gamma"])
def test_a_random_ramp_follows_its_rate(arrivals: Random) -> None:
    """Counted in tenths of the ramp, over many seeds, against the integral of the rate there."""
    stage = StageSpec(rate=10, to=50, duration_s=10, arrivals=arrivals)
    counts = np.zeros(10)
    for seed in range(200):
        offsets = stage_schedule([stage], seed=seed, burstiness=0.5)
        counts += np.histogram(offsets, bins=10, range=(0, 10 * S))[0]
    expected = [10 + 4 * (k + 0.5) for k in range(10)]
    assert counts / 200 == pytest.approx(expected, rel=0.06)


@given(
    st.lists(
        st.builds(
            StageSpec,
            concurrency=st.integers(0, 40),
            to=st.none() | st.integers(0, 40),
            duration_s=st.floats(0.5, 9),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_client_levels_rise_in_time_and_average_what_was_asked(stages: list[StageSpec]) -> None:
    levels = client_levels(stages)
    times = [at for at, _ in levels]
    assert times == sorted(times)
    assert times[0] == 0
    begin = 0.0
    for stage in stages:
        until = begin + stage.duration_s
        inside = [(at / S, level) for at, level in levels if round(begin * S) - 1 <= at < round(until * S) - 1]
        area = 0.0
        for (at, level), after in zip(inside, [at for at, _ in inside[1:]] + [until], strict=True):
            area += (after - at) * level
        assert area == pytest.approx(stage.mean * stage.duration_s, rel=1e-3, abs=1e-3)
        begin = until
