from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.load.arrivals import schedule
from redline.spec.load import LoadPoint

S = 1_000_000_000


def test_constant_is_exact() -> None:
    offsets = schedule(LoadPoint("constant", 8), seed=1, duration_s=2)
    assert offsets == [i * S // 8 for i in range(16)]


@pytest.mark.parametrize("rate", [0.1, 3, 7, 33.3])
def test_constant_has_as_many_as_fit(rate: float) -> None:
    offsets = schedule(LoadPoint("constant", rate), seed=1, duration_s=10)
    assert len(offsets) == -(-rate * 10 // 1)
    assert max(offsets) < 10 * S


@given(st.floats(0.5, 500), st.integers(0, 1000), st.floats(0.5, 20), st.integers(0, 50))
def test_poisson_keeps_its_promises(rate: float, seed: int, duration_s: float, requests: int) -> None:
    point = LoadPoint("poisson", rate)
    offsets = schedule(point, seed=seed, duration_s=duration_s, requests=requests)
    everything = schedule(point, seed=seed, duration_s=duration_s)
    assert offsets == sorted(offsets)
    assert all(0 < offset < duration_s * S for offset in offsets)
    assert offsets == (everything[:requests] if requests else everything)  # a limit cuts, it does not change


def test_poisson_is_poisson() -> None:
    offsets = schedule(LoadPoint("poisson", 200), seed=3, duration_s=100)
    gaps = [b - a for a, b in itertools.pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(S / 200, rel=0.03)
    assert spread / mean == pytest.approx(1, rel=0.05)  # exponential: as wide as it is long


def test_the_seed_decides() -> None:
    point = LoadPoint("poisson", 10)
    assert schedule(point, seed=1, duration_s=5) == schedule(point, seed=1, duration_s=5)
    assert schedule(point, seed=1, duration_s=5) != schedule(point, seed=2, duration_s=5)
