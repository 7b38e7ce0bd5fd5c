"""Choosing a token the slow way: one row, plain Python and float64, written from the description only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from redline.runtime.request import Sampling

NEVER = -math.inf


def edit(
    logits: np.ndarray, s: Sampling, tokens: Sequence[int], prompt_len: int, allowed: set[int] | None = None
) -> list[float]:
    values = [float(value) for value in logits]
    if allowed is not None:
        values = [value if token in allowed else NEVER for token, value in enumerate(values)]
    for token, bias in s.logit_bias:
        values[token] += bias
    if len(tokens) - prompt_len < s.min_tokens:
        for token in s.hold_ids:
            values[token] = NEVER
    for token in set(tokens):
        value = values[token]
        values[token] = value / s.repetition_penalty if value > 0 else value * s.repetition_penalty
    for token, count in Counter(tokens[prompt_len:]).items():
        values[token] -= s.frequency_penalty * count + s.presence_penalty
    return values


def target(
    logits: np.ndarray, s: Sampling, tokens: Sequence[int], prompt_len: int, allowed: set[int] | None = None
) -> np.ndarray:
    """The distribution of the next token."""
    values = edit(logits, s, tokens, prompt_len, allowed)
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    probs = np.zeros(len(values))
    if s.temperature == 0:
        probs[order[0]] = 1
        return probs
    weights = {token: math.exp((values[token] - values[order[0]]) / s.temperature) for token in order}
    kept = [token for token in order if weights[token] >= s.min_p]
    if s.top_k:
        kept = kept[: s.top_k]
    total = sum(weights[token] for token in kept)
    mass = 0.0
    for token in kept:
        if mass >= s.top_p * total and mass > 0:
            break
        probs[token] = weights[token]
        mass += weights[token]
    probs /= probs.sum()
    return probs
