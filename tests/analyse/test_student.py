from __future__ import annotations

import math

import pytest

from redline.analyse.student import t_cdf, t_quantile, two_sided


@pytest.mark.parametrize(
    ("df", "probability", "value"),
    [
        # printed tables of the t distribution
        (1, 0.975, 12.7062), (2, 0.975, 4.30265), (3, 0.975, 3.18245), (4, 0.975, 2.77645), (9, 0.975, 2.26216),
        (30, 0.975, 2.04227), (math.inf, 0.975, 1.95996), (2, 0.8, 1.06066), (5, 0.995, 4.03214), (120, 0.95, 1.65765),
    ],
)  # fmt: skip
def test_against_printed_tables(df: float, probability: float, value: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(value, rel=1e-4)
    assert t_quantile(1 - probability, df) == pytest.approx(-value, rel=1e-4)
    assert t_cdf(value, df) == pytest.approx(probability, abs=1e-5)
    assert two_sided(value, df) == pytest.approx(2 * (1 - probability), abs=2e-5)


def test_fractional_degrees_lie_between_whole_ones() -> None:
    assert t_quantile(0.975, 4) < t_quantile(0.975, 3.4) < t_quantile(0.975, 3)


def test_a_probability_outside_its_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_quantile(1.0, 3)
