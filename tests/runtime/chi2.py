"""Pearson's test of draws against the distribution they should have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    """Of counts against expected counts; cells that expect fewer than 5 are put together."""
    small = expected < 5
    observed = np.append(counts[~small], counts[small].sum())
    wanted = np.append(expected[~small], expected[small].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    freedom = max(len(wanted) - 1, 1)
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def assert_drawn_from(tokens: Sequence[int], probs: np.ndarray) -> None:
    """No token of probability 0, and a p-value that one fair test in 100,000 misses."""
    counts = np.bincount(np.asarray(tokens), minlength=len(probs)).astype(float)
    assert counts[probs == 0].sum() == 0
    assert p_value(counts, probs * len(tokens)) > 1e-5
