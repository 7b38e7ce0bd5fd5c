"""Rotary position embedding: the frequencies of a checkpoint and the table of cosines and sines made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from redline.errors import Unsupported

if TYPE_CHECKING:
    import torch

Kind = Literal["default", "linear", "llama3", "yarn"]


@dataclass(frozen=True)
class Rope:
    """`theta` is the base. The other fields belong to one kind of scaling each and are 0 elsewhere.

    Source: `linear` is position interpolation (arXiv 2306.15595), `yarn` arXiv 2309.00071, `llama3` Meta's Llama 3.1
    release. `original` is the context length before scaling.
    """

    theta: float
    kind: Kind = "default"
    factor: float = 1.0
    original: int = 0
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True


def read_rope(config: dict[str, Any], max_position: int) -> Rope:
    """From `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before). Raises `Unsupported`."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if any(isinstance(value, dict) for value in given.values()):
        raise Unsupported(
            "rope_parameters differs per layer type", why="redline's engine has one rope for all layers", fix=""
        )
    kind = given.get("rope_type", given.get("type", "default"))
    theta = float(given.get("rope_theta", config.get("rope_theta", 10000.0)))
    partial = given.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if partial not in (None, 1, 1.0):
        raise Unsupported(f"partial_rotary_factor {partial}: only whole heads are rotated")
    if kind in ("default", "mrope") and not given.get("mrope_section"):
        return Rope(theta)
    try:
        return _scaled(kind, theta, given, config, max_position)
    except KeyError as missing:
        raise Unsupported(f"rope type {kind} without {missing.args[0]}") from None


def _scaled(kind: str, theta: float, given: dict[str, Any], config: dict[str, Any], max_position: int) -> Rope:
    original = given.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    if kind == "linear":
        return Rope(theta, "linear", float(given["factor"]))
    if kind == "llama3":
        low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
        return Rope(theta, "llama3", float(given["factor"]), int(original or max_position), low, high)
    if kind == "yarn":
        original = int(original or max_position)
        factor = float(given.get("factor") or max_position / original)
        fast, slow = given.get("beta_fast") or 32.0, given.get("beta_slow") or 1.0
        attention = _yarn_attention(factor, given)
        truncate = bool(given.get("truncate", True))
        return Rope(theta, "yarn", factor, original, 0.0, 0.0, float(fast), float(slow), attention, truncate)
    raise Unsupported(
        f"rope type {kind}: redline's engine has default, linear, llama3 and yarn",
        fix="--engine vllm or --engine transformers may have it",
    )


def _yarn_attention(factor: float, given: dict[str, Any]) -> float:
    """What cosines and sines are multiplied with, so that the entropy of attention stays."""
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if given.get("mscale") and given.get("mscale_all_dim"):
        return scale(given["mscale"]) / scale(given["mscale_all_dim"])
    return scale(1.0)


def inverse_frequencies(rope: Rope, head_dim: int) -> torch.Tensor:
    """[head_dim / 2] float32, radians per position."""
    import torch

    steps = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain: torch.Tensor = 1.0 / rope.theta**steps
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    if rope.kind == "yarn":
        return _yarn(plain, rope, head_dim)
    return plain


def _llama3(plain: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Long wavelengths are slowed down, short ones stay, those between are blended."""
    import torch

    wavelength = 2 * math.pi / plain
    low, high = rope.original / rope.low_freq_factor, rope.original / rope.high_freq_factor
    blend = (rope.original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    between = (1 - blend) * plain / rope.factor + blend * plain
    scaled = torch.where(wavelength > low, plain / rope.factor, between)
    return torch.where(wavelength < high, plain, scaled)


def _yarn(plain: torch.Tensor, rope: Rope, head_dim: int) -> torch.Tensor:
    """Dimensions that turn often within the original context stay, those that turn rarely are interpolated."""
    import torch

    def dimension(turns: float) -> float:
        return head_dim * math.log(rope.original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    span = high - low if high != low else 0.001
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    return plain / rope.factor * ramp + plain * (1 - ramp)


def cos_sin(rope: Rope, head_dim: int, positions: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """[positions, head_dim] float32: cosines of all frequencies, then sines."""
    import torch

    frequencies = inverse_frequencies(rope, head_dim).to(device)
    angles = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), -1) * rope.attention_factor
