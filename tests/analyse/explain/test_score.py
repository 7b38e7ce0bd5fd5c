from __future__ import annotations

import math

import numpy as np
import pytest

from redline.analyse.explain.score import attributable, benjamini_hochberg, fit, score, shift_p
from tests.analyse.explain.streams import lumps

SIZE = 1500


@pytest.mark.parametrize("graded", [False, True])
def test_under_the_null_p_is_at_most_its_nominal_rate(graded: bool) -> None:
    """A/A: lumpy losses and lumpy causes that know nothing of each other."""
    random = np.random.default_rng(7)
    ps = []
    for _ in range(600):
        lost = lumps(random, SIZE, 8, 30) * random.random(SIZE)
        level = lumps(random, SIZE, 8, 30) * (random.random(SIZE) if graded else 1.0)
        ps.append(shift_p(lost, level))
    for rate in (0.01, 0.05, 0.2, 0.5):
        error = 3.3 * math.sqrt(rate * (1 - rate) / len(ps))
        assert np.mean(np.array(ps) <= rate) <= rate + error
    # and it is no wall that nothing gets through
    assert np.mean(np.array(ps) <= 0.5) > 0.4


def test_a_shuffle_would_not_keep_its_rate() -> None:
    """Why shifts: lumpy series overlap by chance far more often than shuffled ones."""
    random = np.random.default_rng(8)
    early = 0
    for _ in range(150):
        lost, level = lumps(random, 400, 3, 40), lumps(random, 400, 3, 40)
        overlap = lost @ level
        shuffled = [random.permutation(lost) @ level for _ in range(99)]
        early += (1 + sum(one >= overlap for one in shuffled)) / 100 <= 0.05
    assert early / 150 > 0.15


def test_a_cause_that_made_the_loss_is_found_with_its_share() -> None:
    random = np.random.default_rng(9)
    level = lumps(random, SIZE, 8, 30)
    lost = 0.02 + 0.6 * level
    found = score(lost, level)
    assert found.p <= 3 / SIZE
    assert found.attributable == pytest.approx(0.6 * level.sum() / lost.sum(), rel=1e-6)
    assert found.ratio == pytest.approx(0.62 / 0.02, rel=1e-6)
    assert found.lift == pytest.approx(found.coverage / found.duty)


def test_a_degree_counts_as_much_as_it_is() -> None:
    random = np.random.default_rng(10)
    level = lumps(random, SIZE, 8, 30) * random.random(SIZE)
    base, more = fit(0.1 + 0.5 * level, level)
    assert [base, more] == pytest.approx([0.1, 0.5])
    assert attributable(0.1 + 0.5 * level, level) == pytest.approx(0.5 * level.sum())


def test_what_is_always_or_never_at_work_is_not_judged() -> None:
    lost = np.random.default_rng(11).random(100)
    assert math.isnan(score(lost, np.ones(100)).p)
    assert math.isnan(score(lost, np.zeros(100)).p)
    assert math.isnan(score(np.zeros(100), np.ones(100) / 2).p)
    assert math.isnan(shift_p(np.ones(3), np.ones(3)))


def test_what_was_never_away_has_no_control() -> None:
    """Pressure that goes up and down and is never gone: what there would be without it nobody has seen."""
    random = np.random.default_rng(12)
    level = 0.5 + 0.5 * random.random(SIZE)
    assert math.isnan(score(0.3 * level, level).p)
    level[:100] = 0
    found = score(np.where(level > 0, 0.6 * level - 0.2, 0.05), level)
    assert found.ratio < 20  # the line through these would fall below 0 without it


def test_a_cause_that_protects_explains_nothing() -> None:
    level = np.tile([1.0, 0.0], 50)
    assert attributable(1 - level, level) == 0


def test_false_discoveries_by_hand() -> None:
    found = benjamini_hochberg([0.01, math.nan, 0.04, 0.03, 0.5])
    assert found[0] == pytest.approx(0.04)
    assert math.isnan(found[1])
    assert found[2] == found[3] == pytest.approx(0.04 * 4 / 3)
    assert found[4] == pytest.approx(0.5)
    assert benjamini_hochberg([]) == []
