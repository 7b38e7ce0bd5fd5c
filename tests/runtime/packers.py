"""Writes checkpoints in the layouts of AWQ, GPTQ and compressed-tensors, from the formats' descriptions.

Every packer takes `numbers` [out, in] from 0 to 15, `scale` [out, groups], `zero` [out, groups] and returns the
tensors of one linear layer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Quantized(NamedTuple):
    numbers: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    group: torch.Tensor

    def dequantized(self) -> torch.Tensor:
        """[out, in] float32, element by element as the formats define it."""
        return (self.numbers.float() - self.zero.float()[:, self.group]) * self.scale.float()[:, self.group]


def drawn(
    out: int, inputs: int, size: int, *, symmetric: bool, shuffled: bool, seed: int, dtype: torch.dtype
) -> Quantized:
    """A random quantized matrix. `shuffled`: inputs belong to groups in random order, as with activation order."""
    g = torch.Generator().manual_seed(seed)
    groups = inputs // size if size else 1
    zero = torch.full((out, groups), 8) if symmetric else torch.randint(1, 16, (out, groups), generator=g)
    group = torch.arange(inputs) // (size or inputs)
    if shuffled:
        group = group[torch.randperm(inputs, generator=g)]
    numbers = torch.randint(0, 16, (out, inputs), generator=g)
    scale = (torch.rand(out, groups, generator=g) * 0.02 + 0.01).to(dtype)
    return Quantized(numbers, scale, zero, group)


def _words(values: torch.Tensor, order: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)) -> torch.Tensor:
    """[rows, n] of 0 to 15 -> int32 [rows, n / 8]; the i-th four bits hold the value at `order[i]` of its eight."""
    words = np.zeros((values.shape[0], values.shape[1] // 8), dtype=np.uint32)
    for i in range(8):
        words |= values[:, order[i] :: 8].numpy().astype(np.uint32) << np.uint32(4 * i)
    return torch.from_numpy(words.view(np.int32))


def awq(q: Quantized) -> dict[str, torch.Tensor]:
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {
        "qweight": _words(q.numbers.t(), order),
        "qzeros": _words(q.zero.t(), order),
        "scales": q.scale.t().contiguous(),
    }


def gptq(q: Quantized, offset: int = 1) -> dict[str, torch.Tensor]:
    return {
        "qweight": _words(q.numbers).t().contiguous(),
        "qzeros": _words(q.zero.t() - offset),
        "scales": q.scale.t().contiguous(),
        "g_idx": q.group.to(torch.int32),
    }


def gptq_v2(q: Quantized) -> dict[str, torch.Tensor]:
    return gptq(q, 0)


def packed(q: Quantized) -> dict[str, torch.Tensor]:
    """compressed-tensors: signed numbers, stored with 8 added; zero points packed along the outputs."""
    found = {
        "weight_packed": _words(q.numbers),
        "weight_scale": q.scale,
        "weight_shape": torch.tensor(q.numbers.shape),
    }
    if not bool((q.zero == 8).all()):
        found["weight_zero_point"] = _words(q.zero.t()).t().contiguous()
    if not bool((q.group.diff() >= 0).all()):
        found["weight_g_idx"] = q.group.to(torch.int32)
    return found
