"""Quantized checkpoints: AWQ (gemm), GPTQ, compressed-tensors' pack-quantized and float8.

The three layouts of 4-bit integers hold the same: numbers 0 to 15, per group of inputs a scale and a zero point. They
differ in what is packed along what, in which order, and in what the stored zero point means; `_READERS` has one
function each. All become `W4A16`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812

from redline.runtime.linear import Fp8, Joined, Weight
from redline.runtime.quant_config import Quantization
from redline.runtime.shapes import Part

if TYPE_CHECKING:
    from redline.runtime.checkpoint import Checkpoint

Shapes = dict[str, tuple[int, ...] | None]
"""Tensors that must be there; None: of any shape."""
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_MIDDLE = 8


class W4A16:
    """4-bit weights, activations as they come. Each call expands the weights and multiplies: small in memory, not fast.

    `packed` [out, in / 2] uint8, the even input in the low half. `scale` [out, groups]; `zero` [out, groups] uint8 or
    None for 8. `group` [in] names each input's group where they are not in order. `dtype` is the product's.
    """

    def __init__(
        self,
        packed: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor | None,
        group: torch.Tensor | None,
        dtype: torch.dtype,
        bias: torch.Tensor | None = None,
    ) -> None:
        self.packed, self.scale, self.zero, self.group = packed, scale, zero, group
        self.dtype, self.bias = dtype, bias

    def dequantized(self) -> torch.Tensor:
        """[out, in] float32, exactly (number - zero) · scale."""
        out, half = self.packed.shape
        numbers = torch.stack((self.packed & 15, self.packed >> 4), -1).view(out, 2 * half).float()
        zero = self.zero.float() if self.zero is not None else torch.full_like(self.scale, _MIDDLE, dtype=torch.float32)
        if self.group is not None:
            return (numbers - zero[:, self.group]) * self.scale.float()[:, self.group]
        grouped = numbers.view(out, self.scale.shape[1], -1)
        return ((grouped - zero[:, :, None]) * self.scale.float()[:, :, None]).view(out, 2 * half)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.to(self.dtype), self.dequantized().to(self.dtype), self.bias).to(x.dtype)

    @property
    def nbytes(self) -> int:
        parts = (self.packed, self.scale, self.zero, self.group, self.bias)
        return sum(part.nbytes for part in parts if part is not None)


class _Numbers(NamedTuple):
    """One unpacked part: `numbers` [out, in] and `zero` [out, groups] uint8, `scale` [out, groups], `group` [in]."""

    numbers: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    group: torch.Tensor | None


def quantized_names(part: Part, stored: Quantization) -> tuple[Shapes, set[str]]:
    """(tensors that the part must have, tensors that it may have)."""
    at, out, inputs = part.module + ".", part.out, part.inputs
    groups = inputs // stored.group_size if stored.group_size else 1
    needed: Shapes
    optional: set[str] = set()
    if stored.layout == "fp8":
        needed = {at + "weight": (out, inputs), at + "weight_scale": None}
    elif stored.layout == "awq":
        shapes = {"qweight": (inputs, out // 8), "qzeros": (groups, out // 8), "scales": (groups, out)}
        needed = {at + name: shape for name, shape in shapes.items()}
    elif stored.layout == "gptq":
        shapes = {"qweight": (inputs // 8, out), "qzeros": (groups, out // 8), "scales": (groups, out)}
        needed = {at + name: shape for name, shape in shapes.items()}
        # quantizers of this family write g_idx and zero biases also where the model has none
        optional = {at + "g_idx", at + "bias"}
        if stored.act_order:
            needed[at + "g_idx"] = (inputs,)
    else:
        needed = {at + "weight_packed": (out, -(-inputs // 8)), at + "weight_scale": (out, groups)}
        optional = {at + "weight_shape", at + "weight_g_idx"}
        if not stored.symmetric:
            needed[at + "weight_zero_point"] = (-(-out // 8), groups)
    if part.bias:
        needed[at + "bias"] = (out,)
    return needed, optional


def read_quantized(
    source: Checkpoint, parts: list[Part], stored: Quantization, dtype: torch.dtype, device: torch.device
) -> Weight:
    """The fused layer of parts that are all stored in this layout."""
    bias = _bias(source, parts, dtype, device)
    if stored.layout == "fp8":
        return _read_fp8(source, parts, bias, device)
    read = [_READERS[stored.layout](source, part, stored) for part in parts]
    first = read[0].group
    same = all(
        (n.group is None) == (first is None) and (first is None or n.group is None or torch.equal(n.group, first))
        for n in read
    )
    if not same:
        return Joined([read_quantized(source, [part], stored, dtype, device) for part in parts])
    zeros = [number.zero for number in read if number.zero is not None]
    return W4A16(
        torch.cat([n.numbers[:, 0::2] | (n.numbers[:, 1::2] << 4) for n in read]).to(device),
        torch.cat([n.scale for n in read]).to(device),
        torch.cat(zeros).to(device) if zeros else None,
        None if first is None else first.to(device),
        dtype,
        bias,
    )


def _bias(source: Checkpoint, parts: list[Part], dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
    names = [part.module + ".bias" for part in parts]
    found = [source.tensor(name) if name in source else None for name in names]
    if all(bias is None or not bias.any() for bias in found):
        return None
    filled = [torch.zeros(part.out) if b is None else b.float() for part, b in zip(parts, found, strict=True)]
    return torch.cat(filled).to(device, dtype)


def _read_fp8(source: Checkpoint, parts: list[Part], bias: torch.Tensor | None, device: torch.device) -> Weight:
    """`weight` float8_e4m3fn [out, in]; `weight_scale` one number or [out] or [out, 1]."""
    weights = [source.tensor(part.module + ".weight") for part in parts]
    scales = [
        source.tensor(part.module + ".weight_scale").float().reshape(-1).expand(part.out).to(device) for part in parts
    ]
    joined = torch.empty(sum(part.out for part in parts), parts[0].inputs, dtype=weights[0].dtype, device=device)
    at = 0
    for weight in weights:
        joined[at : at + weight.shape[0]].copy_(weight)
        at += weight.shape[0]
    return Fp8(joined, torch.cat(scales), bias)


def _nibbles(words: torch.Tensor) -> torch.Tensor:
    """int32 [...] -> uint8 [..., 8], lowest bits first."""
    return (
        words.contiguous()
        .view(torch.uint8)
        .unsqueeze(-1)
        .bitwise_right_shift(torch.tensor((0, 4), dtype=torch.uint8))
        .bitwise_and_(15)
        .view(*words.shape, 8)
    )


def _read_awq(source: Checkpoint, part: Part, stored: Quantization) -> _Numbers:
    """Packed along the outputs, eight to a word in the order 0 2 4 6 1 3 5 7; zero points likewise."""
    place = torch.tensor(_AWQ_ORDER).argsort()
    numbers = _nibbles(source.tensor(part.module + ".qweight"))[..., place].view(part.inputs, part.out)
    zero = _nibbles(source.tensor(part.module + ".qzeros"))[..., place].view(-1, part.out)
    scale = source.tensor(part.module + ".scales")
    return _Numbers(numbers.t().contiguous(), scale.t().contiguous(), zero.t().contiguous(), None)


def _read_gptq(source: Checkpoint, part: Part, stored: Quantization) -> _Numbers:
    """Numbers packed along the inputs, zero points along the outputs, less one in the first format."""
    words = source.tensor(part.module + ".qweight")
    numbers = _nibbles(words).permute(1, 0, 2).reshape(part.out, part.inputs)
    zero = _nibbles(source.tensor(part.module + ".qzeros")).view(-1, part.out) + stored.zero_offset
    scale = source.tensor(part.module + ".scales")
    group = _group(source, part.module + ".g_idx", part.inputs, stored)
    return _Numbers(numbers, scale.t().contiguous(), zero.t().contiguous(), group)


def _read_packed(source: Checkpoint, part: Part, stored: Quantization) -> _Numbers:
    """Numbers packed along the inputs and zero points along the outputs, both with 8 added."""
    words = source.tensor(part.module + ".weight_packed")
    numbers = _nibbles(words).view(part.out, -1)[:, : part.inputs].contiguous()
    zero = None
    if not stored.symmetric:
        stored_zero = _nibbles(source.tensor(part.module + ".weight_zero_point"))
        zero = stored_zero.permute(0, 2, 1).reshape(-1, stored_zero.shape[1])[: part.out].contiguous()
    group = _group(source, part.module + ".weight_g_idx", part.inputs, stored)
    return _Numbers(numbers, source.tensor(part.module + ".weight_scale").clone(), zero, group)


def _group(source: Checkpoint, name: str, inputs: int, stored: Quantization) -> torch.Tensor | None:
    """Each input's group; None where they are in order, as they are without activation order."""
    if name not in source or not stored.group_size:
        return None
    found = source.tensor(name).long()
    return None if torch.equal(found, torch.arange(inputs) // stored.group_size) else found


_READERS: dict[str, Callable[..., _Numbers]] = {
    "awq": _read_awq,
    "gptq": _read_gptq,
    "packed": _read_packed,
}
