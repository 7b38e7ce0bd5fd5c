from __future__ import annotations

import numpy as np
import pytest

from redline.analyse.stalls import find_stalls, stall_limit_ns


def arrivals(*gaps_ms: float) -> np.ndarray:
    return np.cumsum([10**9, *(int(gap * 1e6) for gap in gaps_ms)]).astype(np.int64)


def test_a_gap_that_stands_out_is_a_stall_and_says_where() -> None:
    found = find_stalls(arrivals(*[8] * 10, 120, *[8] * 10, 900, 8))
    assert [(stall.chunk, stall.ns) for stall in found] == [(22, 900_000_000), (11, 120_000_000)]
    assert found[0].times == pytest.approx(112.5)
    assert found[1].start_ns == 10**9 + 80_000_000


@pytest.mark.parametrize("gaps", [[8] * 20, [1] * 20 + [19], [50] * 10 + [240], [8, 500], [], [5] * 3, [0] * 50 + [15]])
def test_what_is_usual_is_none(gaps: list[float]) -> None:
    assert find_stalls(arrivals(*gaps)) == []


def test_chunks_that_come_together_have_no_median_to_speak_of() -> None:
    found = find_stalls(arrivals(*[0] * 50, 25))
    assert [stall.times for stall in found] == [float("inf")]
    assert stall_limit_ns(arrivals(*[0] * 50)) == 20_000_000
