from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redline.runtime.ranking import BLOCK, LARGE, best, in_blocks, pick, top

rows_st = st.lists(st.lists(st.integers(-3, 3), min_size=9, max_size=9), min_size=1, max_size=5)


@given(rows_st, st.integers(1, 9))
def test_top_against_sorting(rows: list[list[int]], count: int) -> None:
    values, ids = top(torch.tensor(rows, dtype=torch.float32), count)
    for row, found, places in zip(rows, values.tolist(), ids.tolist(), strict=True):
        order = sorted(range(9), key=lambda i: (-row[i], i))[:count]
        assert places == order
        assert found == [row[i] for i in order]


@pytest.mark.parametrize("size", [100, LARGE, 3 * LARGE + BLOCK])
def test_best_is_the_lowest_of_those_that_tie(size: int) -> None:
    x = torch.randint(0, 40, (7, size), generator=torch.Generator().manual_seed(1)).float()
    values, ids = best(x)
    assert ids.tolist() == [int(np.argmax(row)) for row in x.numpy()]
    assert values.tolist() == x.amax(-1).tolist()


@pytest.mark.parametrize("size", [100, LARGE])
def test_best_tells_rows_of_no_use(size: int) -> None:
    x = torch.zeros(3, size)
    x[0, size // 2] = float("nan")
    x[1] = float("-inf")
    values, _ = best(x)
    assert values.isfinite().tolist() == [False, False, True]


def test_pick_in_blocks_against_a_plain_sum() -> None:
    weights = torch.rand(50, LARGE, generator=torch.Generator().manual_seed(2)) ** 8
    weights[:, ::3] = 0
    assert in_blocks(weights)
    numbers = torch.linspace(0, 1 - 2.0**-52, 50, dtype=torch.float64)
    sums = weights.double().numpy().cumsum(-1)
    found = pick(weights, numbers).tolist()
    for row, place, number in zip(sums, found, numbers.tolist(), strict=True):
        assert abs(place - int(np.searchsorted(row, number * row[-1], side="right"))) <= 1
    assert (weights[range(50), found] > 0).all()


@pytest.mark.parametrize("size", [5, LARGE])
def test_the_ends_of_the_range_draw_tokens_of_weight(size: int) -> None:
    weights = torch.zeros(2, size)
    weights[:, 3] = 0.1
    assert pick(weights, torch.tensor([0.0, 1 - 2.0**-52], dtype=torch.float64)).tolist() == [3, 3]
