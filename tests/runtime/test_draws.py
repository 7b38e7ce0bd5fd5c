from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redline.runtime.draws import BITS, MASK, STEP, Purpose, bits, draws, mix, signed, uniform, uniforms
from tests.runtime.chi2 import p_value

CPU = torch.device("cpu")


def many(seeds: torch.Tensor, positions: torch.Tensor, purpose: Purpose = Purpose.TOKEN) -> np.ndarray:
    return uniforms(seeds, positions, purpose).numpy()


N = 200_000
STREAMS = {
    "positions of one request": (torch.zeros(N, dtype=torch.int64), torch.arange(N)),
    "neighbouring seeds at one position": (torch.arange(N), torch.full((N,), 17)),
    "seeds and positions that share few bits": (torch.arange(N) << 40, torch.arange(N) % 50),
}


def test_against_the_published_splitmix64() -> None:
    # The first outputs of the reference generator for the seed 1234567.
    state, found = 1234567, []
    for _ in range(3):
        state = (state + STEP) & MASK
        found.append(mix(state))
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("name", STREAMS)
def test_numbers_are_uniform(name: str) -> None:
    found = many(*STREAMS[name])
    counts = np.histogram(found, bins=1000, range=(0, 1))[0].astype(float)
    assert p_value(counts, np.full(1000, N / 1000)) > 1e-5
    # Kolmogorov and Smirnov: one fair test in 100,000 is further off than 2.47 / sqrt(N).
    ordered = np.sort(found)
    grid = np.arange(N)
    assert max((ordered - grid / N).max(), ((grid + 1) / N - ordered).max()) < 2.47 / np.sqrt(N)


@pytest.mark.parametrize("name", STREAMS)
def test_numbers_that_follow_each_other_are_independent(name: str) -> None:
    found = many(*STREAMS[name])
    pairs = np.histogram2d(found[:-1], found[1:], bins=20, range=((0, 1), (0, 1)))[0]
    assert p_value(pairs.ravel(), np.full(400, (N - 1) / 400)) > 1e-5


def test_purposes_are_independent() -> None:
    seeds, positions = STREAMS["positions of one request"]
    of = [many(seeds, positions, purpose) for purpose in Purpose]
    for i, one in enumerate(of):
        for other in of[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / np.sqrt(N)


def test_low_bits_are_as_good_as_high_ones() -> None:
    found = np.array([bits(3, position, Purpose.TOKEN) & 1023 for position in range(50_000)])
    counts = np.bincount(found, minlength=1024).astype(float)
    assert p_value(counts, np.full(1024, 50_000 / 1024)) > 1e-5


@given(st.integers(-(2**70), 2**70), st.integers(0, 2**31), st.sampled_from(Purpose))
def test_against_tensors(seed: int, position: int, purpose: Purpose) -> None:
    found = uniforms(torch.tensor([signed(seed)]), torch.tensor([position]), purpose)
    assert found.item() == uniform(seed, position, purpose) == draws([seed], [position], purpose, CPU).item()


def test_the_greatest_number_times_a_total_stays_below_it() -> None:
    greatest = 1 - 2.0**-BITS
    for total in (1.0, np.nextafter(1, 0), np.nextafter(2, 0), 1 / 3, 5e-300, 1e300):
        assert greatest * total < total
