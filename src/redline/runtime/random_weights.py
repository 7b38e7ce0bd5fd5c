"""Seeded random weights of a model's true shape, made where they are needed: for speed without a checkpoint."""

from __future__ import annotations

import zlib

import torch

from redline.errors import Unsupported
from redline.runtime.architecture import ModelConfig
from redline.runtime.shapes import part_shapes, parts_of, plain_shapes

SPREAD = 0.02


class RandomWeights:
    """Matrices N(0, 0.02), norms 1, biases 0. Each tensor depends on the seed and its name only."""

    def __init__(self, model: ModelConfig, seed: int, device: torch.device) -> None:
        if model.quantization and model.quantization.layout != "fp8":
            raise Unsupported(f"random weights stored as {model.quantization.layout}", fix="--load-format auto")
        self.seed, self.device = seed, device
        self.dtype = getattr(torch, model.dtype)
        self.shapes = plain_shapes(model)
        for part in parts_of(model):
            self.shapes.update(part_shapes(part))

    def tensor(self, name: str) -> torch.Tensor:
        shape = self.shapes[name]
        if len(shape) == 1:
            fill = 0.0 if name.endswith(".bias") else 1.0
            return torch.full(shape, fill, dtype=self.dtype, device=self.device)
        generator = torch.Generator(self.device).manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
        return torch.empty(shape, dtype=self.dtype, device=self.device).normal_(0.0, SPREAD, generator=generator)
