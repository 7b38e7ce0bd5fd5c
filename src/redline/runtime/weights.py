"""Weights into a `Model`: safetensors, mapped and copied once into fused tensors, or seeded random ones."""

from __future__ import annotations

from pathlib import Path

import torch

from redline.errors import Unsupported
from redline.runtime.architecture import ModelConfig
from redline.runtime.checkpoint import Checkpoint
from redline.runtime.kernels import Kernels
from redline.runtime.linear import Fp8, Int8, Joined, Weight, dense
from redline.runtime.model import Layer, Model
from redline.runtime.quant import read_quantized
from redline.runtime.random_weights import RandomWeights
from redline.runtime.rope import cos_sin
from redline.runtime.shapes import Part, fused_parts

Source = Checkpoint | RandomWeights


def load_model(
    model: ModelConfig,
    folder: Path | None,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    quantization: str,
    seed: int,
    kernels: Kernels,
    activations: torch.dtype | None = None,
    positions: int | None = None,
) -> Model:
    """`folder` None: random weights, N(0, 0.02), made on the device from `seed`.

    `dtype` is that of plain weights, `activations` (default: the same) that of everything else. `quantization`: `auto`
    follows the checkpoint; `none` refuses a quantized one; `int8` (CPU) and `fp8` quantize plain weights now.
    `positions` bounds the rope table. Raises `EnvironmentFault` naming tensors that are missing, extra or misshapen,
    `Unsupported` for pickles and for a quantization that does not fit.
    """
    device = torch.device(device)
    _check_quantization(model, quantization, device)
    source: Source = RandomWeights(model, seed, device) if folder is None else Checkpoint(folder, model)
    build = _Builder(model, source, dtype, device, quantization)
    layers = [build.layer(i, activations or dtype) for i in range(model.num_layers)]
    embedding = build.copied("model.embed_tokens.weight", dtype)
    head = dense(embedding if model.tied else build.copied("lm_head.weight", dtype))
    return Model(
        model,
        kernels,
        embedding=embedding,
        layers=layers,
        norm=build.copied("model.norm.weight", activations or dtype),
        head=head,
        cos_sin=cos_sin(model.rope, model.head_dim, positions or model.max_position, device),
        dtype=activations or dtype,
    )


def _check_quantization(model: ModelConfig, quantization: str, device: torch.device) -> None:
    stored = model.quantization
    if quantization in ("none", "int8", "fp8") and stored and not (quantization == "fp8" and stored.layout == "fp8"):
        raise Unsupported(
            f"--quantization {quantization} of a checkpoint that is stored as {stored.layout}",
            fix="--quantization auto takes it as it is",
        )
    if quantization == "int8" and device.type != "cpu":
        raise Unsupported("int8 weights on a GPU", fix="--quantization fp8")


class _Builder:
    """Makes one fused layer after the other, so that no more than one layer exists twice."""

    def __init__(
        self, model: ModelConfig, source: Source, dtype: torch.dtype, device: torch.device, quantization: str
    ) -> None:
        self.model, self.source, self.dtype, self.device = model, source, dtype, device
        self.quantization = quantization
        if quantization == "auto" and isinstance(source, RandomWeights) and model.quantization:
            self.quantization = "fp8"

    def copied(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """On the device, in memory of our own."""
        found = self.source.tensor(name)
        return torch.empty(found.shape, dtype=dtype, device=self.device).copy_(found)

    def layer(self, i: int, activations: torch.dtype) -> Layer:
        m, at = self.model, f"model.layers.{i}."
        fused = {name: self.fused(parts) for name, parts in fused_parts(m, i).items()}
        q_norm = self.copied(at + "self_attn.q_norm.weight", activations) if m.qk_norm else None
        k_norm = self.copied(at + "self_attn.k_norm.weight", activations) if m.qk_norm else None
        return Layer(
            input_norm=self.copied(at + "input_layernorm.weight", activations),
            qkv=fused["qkv"],
            q_norm=q_norm,
            k_norm=k_norm,
            o=fused["o"],
            post_norm=self.copied(at + "post_attention_layernorm.weight", activations),
            gate_up=fused["gate_up"],
            down=fused["down"],
            window=m.window[i],
        )

    def fused(self, parts: list[Part]) -> Weight:
        stored = self.model.quantization
        if stored and isinstance(self.source, Checkpoint):
            plain = [stored.skips(part.module) for part in parts]
            if not any(plain):
                return read_quantized(self.source, parts, stored, self.dtype, self.device)
            if not all(plain):
                return Joined([self.fused([part]) for part in parts])
        return self._plain(parts)

    def _plain(self, parts: list[Part]) -> Weight:
        rows = sum(part.out for part in parts)
        weight = torch.empty(rows, parts[0].inputs, dtype=self.dtype, device=self.device)
        biased = [part.bias for part in parts]
        bias = torch.zeros(rows, dtype=self.dtype, device=self.device) if any(biased) else None
        at = 0
        for part in parts:
            weight[at : at + part.out].copy_(self.source.tensor(part.module + ".weight"))
            if part.bias and bias is not None:
                bias[at : at + part.out].copy_(self.source.tensor(part.module + ".bias"))
            at += part.out
        if self.quantization == "int8":
            return Int8(weight, None if bias is None else bias.to(torch.bfloat16))
        if self.quantization == "fp8":
            return Fp8.quantize(weight, bias)
        return dense(weight, bias)
