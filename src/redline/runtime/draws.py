"""Random numbers without a state: a number is a function of (seed, position in the sequence, purpose).

A request therefore draws the same numbers alone, in any batch, and again after a preemption. The generator is
SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): the stream of a seed and
purpose starts at a hashed place, and the position counts along it. All arithmetic is modulo 2**64, so a kernel that
repeats these lines in unsigned 64-bit integers gets the same bits.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import torch

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
BITS = 52
"""Of a uniform number. With 52, `u * total` is below `total` also after rounding, whatever `total` is."""


class Purpose(enum.IntEnum):
    """What a number is for, so that two decisions about one position are independent."""

    TOKEN = 0
    ACCEPT = 1
    RESIDUAL = 2
    DRAFT = 3


def mix(z: int) -> int:
    """SplitMix64's finaliser, a bijection of 64-bit integers."""
    z = ((z ^ (z >> 30)) * FIRST) & MASK
    z = ((z ^ (z >> 27)) * SECOND) & MASK
    return z ^ (z >> 31)


def bits(seed: int, position: int, purpose: Purpose) -> int:
    """64 random bits. Any integer is a seed; it counts modulo 2**64."""
    start = mix((seed + (int(purpose) + 1) * STEP) & MASK)
    return mix((start + (position + 1) * STEP) & MASK)


def uniform(seed: int, position: int, purpose: Purpose) -> float:
    """In [0, 1), on a grid of 2**-52."""
    return (bits(seed, position, purpose) >> (64 - BITS)) * 2.0**-BITS


def uniforms(seeds: torch.Tensor, positions: torch.Tensor, purpose: Purpose) -> torch.Tensor:
    """The same numbers for tensors: int64 [...] and int64 [...] to float64 [...], on the tensors' device.

    `seeds` are the seeds modulo 2**64 as signed integers (`signed`).
    """
    start = _mix(seeds + signed((int(purpose) + 1) * STEP))
    mixed = _mix(start + (positions + 1) * signed(STEP))
    return _shift(mixed, 64 - BITS).to(torch.float64) * 2.0**-BITS


def signed(value: int) -> int:
    """The signed 64-bit integer that has the bits of `value` modulo 2**64."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def draws(seeds: Sequence[int], positions: Sequence[int], purpose: Purpose, device: torch.device) -> torch.Tensor:
    """Uniform numbers, float64 [R], one per (seed, position)."""
    numbers = [uniform(seed, position, purpose) for seed, position in zip(seeds, positions, strict=True)]
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def _shift(z: torch.Tensor, count: int) -> torch.Tensor:
    # torch shifts signed integers arithmetically.
    return (z >> count) & ((1 << (64 - count)) - 1)


def _mix(z: torch.Tensor) -> torch.Tensor:
    z = (z ^ _shift(z, 30)) * signed(FIRST)
    z = (z ^ _shift(z, 27)) * signed(SECOND)
    return z ^ _shift(z, 31)
