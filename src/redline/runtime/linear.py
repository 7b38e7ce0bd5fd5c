"""Linear layers by how their weights are stored. All take [T, in] and give [T, out] in the dtype of the input.

Plain    dense, any device               Int8    8-bit integers per output channel, for small batches on a CPU
Packed   dense, laid out for a CPU       Fp8     float8 weights and activations, for Hopper
W4A16    4-bit groups (`quant.py`)       Joined  side by side, where parts of a fused layer are stored differently
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch.nn import functional as F  # noqa: N812

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


class Weight(Protocol):
    """`apply` is what every kernel tier may fall back to."""

    def apply(self, x: torch.Tensor) -> torch.Tensor: ...

    def dequantized(self) -> torch.Tensor:
        """[out, in] as `apply` multiplies with it; float32 where it was quantized."""
        ...

    @property
    def nbytes(self) -> int: ...


class Plain:
    """`weight` [out, in], `bias` [out] or None."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != self.weight.dtype:
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
        return F.linear(x, self.weight, self.bias)

    def dequantized(self) -> torch.Tensor:
        return self.weight

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this CPU have oneDNN's packed matrix product for the dtype."""
    mkldnn = torch.ops.mkldnn
    if not torch._C._has_mkldnn or not hasattr(mkldnn, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(mkldnn._is_mkldnn_bf16_supported()))


class Packed:
    """`Plain` in oneDNN's own blocked layout.

    Laid out once instead of at each call, which is 1.3 to 2 times faster for up to some 30 tokens and no slower beyond.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.dtype, self.bias = weight.dtype, bias
        self.out_features = weight.shape[0]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._nbytes = weight.nbytes
        self._op = torch.ops.mkldnn._linear_pointwise.default

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != self.dtype:
            out: torch.Tensor = self._op(x.to(self.dtype), self.packed, self.bias, "none", [], "")
            return out.to(x.dtype)
        plain: torch.Tensor = self._op(x, self.packed, self.bias, "none", [], "")
        return plain

    def dequantized(self) -> torch.Tensor:
        dense: torch.Tensor = self.packed.to_dense()
        return dense

    @property
    def nbytes(self) -> int:
        return self._nbytes


def dense(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Weight:
    """Unquantized weights in the form that is quickest where they are."""
    if weight.device.type == "cpu" and can_pack(weight.dtype):
        return Packed(weight, bias)
    return Plain(weight, bias)


class Int8:
    """Weights in 8 bits, one scale per output channel; activations in bfloat16. For CPUs.

    Up to `switch` tokens the integers are multiplied directly, which reads half of bfloat16's bytes. That kernel's time
    grows with the tokens, so larger batches expand the weights and use the usual matrix product. The switch is measured
    once per shape.
    """

    _switches: dict[tuple[int, ...], int] = {}  # noqa: RUF012 - one measurement serves all layers

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        scale = weight.abs().amax(1).float().clamp(min=1e-12) / 127
        self.integers = (weight.float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.scale = scale.to(torch.bfloat16)
        # the scale was rounded, so the integers must belong to the rounded one
        self.integers = (weight.float() / self.scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.bias = bias
        self.switch = self._measured()

    def _measured(self) -> int:
        shape = tuple(self.integers.shape)
        if shape not in self._switches:
            self._switches[shape] = next((n // 2 for n in (4, 8, 16, 32, 64) if not self._direct_wins(n)), 64)
        return self._switches[shape]

    def _direct_wins(self, tokens: int) -> bool:
        x = torch.ones(tokens, self.integers.shape[1], dtype=torch.bfloat16)
        return _seconds(lambda: self._direct(x)) < _seconds(lambda: self._expanded(x))

    def _direct(self, x: torch.Tensor) -> torch.Tensor:
        return torch._weight_int8pack_mm(x, self.integers, self.scale)

    def _expanded(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.integers.to(torch.bfloat16)) * self.scale

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        half = x.to(torch.bfloat16)
        out = self._direct(half) if x.shape[0] <= self.switch else self._expanded(half)
        return (out if self.bias is None else out + self.bias).to(x.dtype)

    def dequantized(self) -> torch.Tensor:
        return self.integers.float() * self.scale.float()[:, None]

    @property
    def nbytes(self) -> int:
        return self.integers.nbytes + self.scale.nbytes


def _seconds(call: Callable[[], torch.Tensor]) -> float:
    """The best of three, which other processes disturb least."""
    call()
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


class Fp8:
    """W8A8: float8_e4m3fn weights with a float32 scale per output channel, activations scaled per token as they come.

    `weight` [out, in] float8, `scale` [out] float32 (a scale per tensor is repeated). On a GPU with fp8 units
    `torch._scaled_mm` multiplies; elsewhere the same rounding is emulated in float32, which is slow and for tests.
    """

    def __init__(self, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias
        self.scale = scale.to(torch.float32).reshape(-1).expand(weight.shape[0]).contiguous()
        capable = weight.is_cuda and torch.cuda.get_device_capability(weight.device) >= (8, 9)
        self.native = capable and weight.shape[0] % 16 == 0 and weight.shape[1] % 16 == 0

    @classmethod
    def quantize(cls, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Fp8:
        """From dense weights; the largest of each output channel becomes float8's largest."""
        scale = weight.abs().amax(1).float().clamp(min=1e-12) / FP8_MAX
        return cls(to_fp8(weight.float() / scale[:, None]), scale, bias)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        scale = x.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / FP8_MAX
        rounded = to_fp8(x.float() / scale)
        if self.native:
            out = torch._scaled_mm(
                rounded,
                self.weight.t(),
                scale_a=scale,
                scale_b=self.scale[None, :],
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
            out = out if self.bias is None else out + self.bias
        else:
            out = F.linear(rounded.float(), self.weight.float()) * scale * self.scale
            out = out if self.bias is None else out + self.bias.float()
        return out.to(x.dtype)

    def dequantized(self) -> torch.Tensor:
        return self.weight.float() * self.scale[:, None]

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.scale.nbytes


def to_fp8(x: torch.Tensor) -> torch.Tensor:
    """Rounds to float8_e4m3fn; what is too large becomes the largest, where a bare cast would give NaN."""
    return x.clamp(-FP8_MAX, FP8_MAX).to(FP8)


class Joined:
    """Parts of a fused layer that cannot be one matrix, one after the other in the output."""

    def __init__(self, parts: Sequence[Weight]) -> None:
        self.parts = parts

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.apply(x) for part in self.parts], -1)

    def dequantized(self) -> torch.Tensor:
        return torch.cat([part.dequantized().float() for part in self.parts])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)
