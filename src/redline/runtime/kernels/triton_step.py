"""A decode step of the model with as few launches as there can be: what stands around a product goes into it.

Between products there is the residual, and perhaps an output that is still to be added to it (`pending`): own products
add it as they store, the library's leave it to the norm that comes next. Which of them multiplies is measured at start,
per operation and number of rows (`choose.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812

from redline.runtime.batch import Batch
from redline.runtime.kernels import KV
from redline.runtime.kernels.triton import TritonKernels, few, scaled_product
from redline.runtime.kernels.triton_linear import Around, Way
from redline.runtime.linear import Fp8, Plain, Weight

if TYPE_CHECKING:
    from redline.runtime.model import Layer, Model


class Residual:
    """The stream between products: `value`, and `pending` where an output is still to be added to it."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value
        self.pending: torch.Tensor | None = None

    def settle(self) -> torch.Tensor:
        if self.pending is not None:
            self.value.add_(self.pending)
            self.pending = None
        return self.value


def suits(model: Model) -> bool:
    """Whether all weights are of the kinds that this step knows, in the activations' dtype or float8."""
    weights = [w for layer in model.layers for w in (layer.qkv, layer.o, layer.gate_up, layer.down)] + [model.head]
    plain = all(isinstance(w, Fp8) or (isinstance(w, Plain) and w.weight.dtype == model.dtype) for w in weights)
    # a row times the norm's gain, not yet scaled, may be out of float16's range
    return plain and model.dtype != torch.float16


class DecodeStep:
    """`fuses_rope`: rotation and page write are part of the attention."""

    def __init__(self, model: Model, kernels: TritonKernels, fuses_rope: bool = True) -> None:
        self.model, self.kernels, self.fuses_rope = model, kernels, fuses_rope
        self.eps = model.config.rms_norm_eps
        self.ways: dict[tuple[str, int], Way] = {}
        """(operation, `few` rows) to an own way; what is not in it goes to the library."""

    def logits(self, batch: Batch, kv: Sequence[KV], out: torch.Tensor) -> None:
        """Decodes a token of every sequence: `out` [B, vocab], in the model's dtype, gets the logits."""
        m = self.model
        stream = Residual(F.embedding(batch.ids, m.embedding).to(m.dtype))
        for i, layer in enumerate(m.layers):
            x = self.normed("qkv", stream, layer.input_norm, layer.qkv)
            self.added("o", self._attention(x, layer, batch, kv[i]), layer.o, stream)
            x = self.gated(stream, layer)
            self.added("down", x, layer.down, stream)
        self.head(stream, out)

    def _attention(self, heads: torch.Tensor, layer: Layer, batch: Batch, kv: KV) -> torch.Tensor:
        m, c, k = self.model, self.model.config, self.kernels
        norms = None if layer.q_norm is None or layer.k_norm is None else (layer.q_norm, layer.k_norm)
        if self.fuses_rope and not k.foreign(heads.shape[0]):
            return k.decode_attention(heads, norms, self.eps, m.cos_sin, batch, kv, m.scale, layer.window)
        both = heads.view(heads.shape[0], -1, c.head_dim)
        q, key, v = both.split_with_sizes((c.num_heads, c.num_kv_heads, c.num_kv_heads), 1)
        if norms is not None:
            q, key = k.rms_norm(q, norms[0], self.eps), k.rms_norm(key, norms[1], self.eps)
        q = k.rope_append(q, key, v, m.cos_sin, batch, kv)
        return k.attention(q, kv, batch, m.scale, layer.window)

    def normed(self, what: str, stream: Residual, gain: torch.Tensor, weight: Weight) -> torch.Tensor:
        """norm(residual) times a weight."""
        way = self.ways.get((what, few(stream.value.shape[0])))
        return self.norm_product(way, stream, gain, weight, Around(pdl=self.kernels.pdl))

    def gated(self, stream: Residual, layer: Layer) -> torch.Tensor:
        """The activation between the two halves of the feed-forward layer, from the residual."""
        way = self.ways.get(("gate_up", few(stream.value.shape[0])))
        if way is not None:
            around = Around(gated=True, pdl=self.kernels.pdl)
            return self.norm_product(way, stream, layer.post_norm, layer.gate_up, around)
        both = self.norm_product(None, stream, layer.post_norm, layer.gate_up)
        down = self.ways.get(("down", few(both.shape[0])))
        if self._rounds(layer.down) if down is None else down.rounds:
            return both  # its activation is computed where it is rounded
        return self.kernels.silu_mul(both)

    def added(self, what: str, x: torch.Tensor, weight: Weight, stream: Residual) -> None:
        """residual += x times a weight."""
        way = self.ways.get((what, few(x.shape[0])))
        if way is not None:
            self.add_product(way, x, weight, stream)
        else:
            stream.pending = self.library(x, weight)

    def head(self, stream: Residual, out: torch.Tensor) -> None:
        """Logits, from the residual."""
        m = self.model
        way = self.ways.get(("head", few(out.shape[0])))
        self.head_product(way, stream, m.norm, m.head, out)

    def norm_product(
        self, way: Way | None, stream: Residual, gain: torch.Tensor, weight: Weight, around: Around | None = None
    ) -> torch.Tensor:
        k = self.kernels
        around = around or Around(pdl=k.pdl)
        if way is not None and way.norms:
            return way.product(stream.settle(), _own(weight), around._replace(gain=gain, eps=self.eps))
        pending, stream.pending = stream.pending, None
        if self._rounds(weight) if way is None else way.rounds:
            rounded, scales = k.norm_quantize(pending, stream.value, gain, self.eps)
            own, dtype = _own(weight), stream.value.dtype
            if way is None:
                return scaled_product(rounded, scales, own, dtype)
            return way.product(rounded, own, around._replace(scales=scales, dtype=dtype))
        if pending is None:
            x = k.rms_norm(stream.value, gain, self.eps)
        else:
            x, stream.value = k.add_rms_norm(pending, stream.value, gain, self.eps)
        return weight.apply(x) if way is None else way.product(x, _own(weight), around)

    def add_product(self, way: Way, x: torch.Tensor, weight: Weight, stream: Residual) -> None:
        around = Around(residual=stream.settle(), pdl=self.kernels.pdl)
        if way.rounds:
            x, scales = self._rounded(x, weight)
            around = around._replace(scales=scales)
        way.product(x, _own(weight), around)

    def head_product(
        self, way: Way | None, stream: Residual, gain: torch.Tensor, weight: Weight, out: torch.Tensor
    ) -> None:
        if way is not None:
            self.norm_product(way, stream, gain, weight, Around(out=out, pdl=self.kernels.pdl))
        elif isinstance(weight, Plain) and weight.bias is None:
            k, pending = self.kernels, stream.pending
            stream.pending = None
            if pending is None:
                x = k.rms_norm(stream.value, gain, self.eps)
            else:
                x = k.add_rms_norm(pending, stream.value, gain, self.eps)[0]
            torch.mm(x, weight.weight.t(), out=out)
        else:
            out.copy_(self.norm_product(None, stream, gain, weight))

    def library(self, x: torch.Tensor, weight: Weight) -> torch.Tensor:
        if self._rounds(weight):
            return scaled_product(*self._rounded(x, weight), _own(weight), x.dtype)
        return weight.apply(x)

    def _rounded(self, x: torch.Tensor, weight: Weight) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows as float8. What is twice as wide as the weight is first halved by the gated activation."""
        wide = x.shape[1] != _own(weight).weight.shape[1]
        return self.kernels.silu_quantize(x) if wide else self.kernels.quantize_rows(x)

    def _rounds(self, weight: Weight) -> bool:
        return isinstance(weight, Fp8) and weight.native and weight.bias is None


def _own(weight: Weight) -> Plain | Fp8:
    assert isinstance(weight, Plain | Fp8)
    return weight
