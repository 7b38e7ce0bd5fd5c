from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.ranked import Ranked
from redline.store.requests import Whole

some = st.one_of(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60),
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=60),
    st.lists(st.sampled_from([0, 1, 7, 12_000_000, 12_000_001, 2**40]), min_size=1, max_size=60),
)


@given(some, st.data())
def test_against_sorting(values: list[int], data: st.DataObject) -> None:
    array: Whole = np.array(values, np.int64)
    if max(values) < 2**32:
        array = array.astype(np.uint32)
    at = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=9))
    assert Ranked(array).at(np.array(at, np.int64)).tolist() == [sorted(values)[place] for place in at]


@pytest.mark.parametrize("pauses", [0, 3000])
def test_against_sorting_many(pauses: int) -> None:
    rng = np.random.default_rng(pauses)
    values = (rng.lognormal(0, 0.5, 200_000) * 12e6).astype(np.uint32)
    values[rng.integers(0, len(values), pauses)] = rng.integers(0, 2**32, pauses)
    at = rng.integers(0, len(values), 500)
    np.testing.assert_array_equal(Ranked(values).at(at), np.sort(values)[at])


def test_of_nothing_nothing_is_asked() -> None:
    assert len(Ranked(np.empty(0, np.uint32)).at(np.empty(0, np.int64))) == 0
