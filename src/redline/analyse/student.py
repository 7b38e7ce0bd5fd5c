"""Student's t: what a mean of few rounds may claim. Written out, since numpy has no distribution functions."""

from __future__ import annotations

import math

_ROUNDING = 1e-300


def t_quantile(probability: float, df: float) -> float:
    """The value that a t variable with `df` degrees of freedom (any positive number, ∞ for the normal) stays below."""
    if not 0 < probability < 1:
        raise ValueError(f"a probability lies between 0 and 1, not at {probability}")
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < probability and high < 1e12:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < probability else (low, middle)
    return (low + high) / 2


def t_cdf(value: float, df: float) -> float:
    """Probability that a t variable with `df` degrees of freedom is at most `value`."""
    if math.isinf(value):
        return 1.0 if value > 0 else 0.0
    if math.isinf(df) or df > 1e7:
        return math.erfc(-value / math.sqrt(2)) / 2
    tail = _beta_share(df / (df + value * value), df / 2, 0.5) / 2
    return 1 - tail if value > 0 else tail


def two_sided(value: float, df: float) -> float:
    """p-value of a t statistic, either direction."""
    return 2 * t_cdf(-abs(value), df)


def satterthwaite(a: float, dfa: float, b: float, dfb: float) -> float:
    """Degrees of freedom of the sum of two variances of means."""
    below = a**2 / dfa + b**2 / dfb
    return (a + b) ** 2 / below if below > 0 else min(dfa, dfb)


def _beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Lentz's evaluation of the continued fraction of the incomplete beta function."""
    c, d = 1.0, 1 / _away_from_0(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_0(1 + step * d)
            c = _away_from_0(1 + step / c)
            result *= c * d
        if abs(c * d - 1) < 1e-13:
            break
    return result


def _away_from_0(value: float) -> float:
    return value if abs(value) > _ROUNDING else _ROUNDING
