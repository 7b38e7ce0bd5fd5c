"""One definition of the Llama family: Llama, Mistral, Qwen2 and Qwen3 differ by biases, norms and windows only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from redline.runtime.architecture import ModelConfig
from redline.runtime.batch import Batch
from redline.runtime.kernels import KV, Kernels
from redline.runtime.linear import Weight


@dataclass
class Layer:
    """`qkv` gives query, key and value heads end to end; `gate_up` the gate, then what it is multiplied with."""

    input_norm: torch.Tensor
    qkv: Weight
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    o: Weight
    post_norm: torch.Tensor
    gate_up: Weight
    down: Weight
    window: int | None


class Model:
    """Weights and the forward pass. `dtype` is that of activations and KV; weights may be stored in another.

    `cos_sin` [positions, head_dim] float32 bounds the positions that can be asked for.
    """

    def __init__(
        self,
        config: ModelConfig,
        kernels: Kernels,
        *,
        embedding: torch.Tensor,
        layers: Sequence[Layer],
        norm: torch.Tensor,
        head: Weight,
        cos_sin: torch.Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.config, self.kernels, self.dtype = config, kernels, dtype
        self.embedding, self.layers, self.norm, self.head, self.cos_sin = embedding, layers, norm, head, cos_sin
        self.scale = config.head_dim**-0.5

    def forward(self, batch: Batch, kv: Sequence[KV]) -> torch.Tensor:
        """Hidden states at `batch.logits_at`, [L, hidden], after the last norm. Writes the step's K and V.

        As many as there are tokens means all of them, in order.
        """
        c, k = self.config, self.kernels
        last = len(self.layers) - 1
        some = batch.logits_at.shape[0] != batch.ids.shape[0]
        residual = F.embedding(batch.ids, self.embedding).to(self.dtype)
        x = k.rms_norm(residual, self.layers[0].input_norm, c.rms_norm_eps)
        for i, layer in enumerate(self.layers):
            if i:
                x, residual = k.add_rms_norm(x, residual, layer.input_norm, c.rms_norm_eps)
            x = self._attention(x, layer, batch, kv[i])
            if some and i == last and not batch.logits_at.shape[0]:
                return residual[:0]  # a part of a prompt: its K and V are all that was wanted
            if some and i == last:
                # what follows concerns each token alone, so the others are done
                x, residual = x[batch.logits_at], residual[batch.logits_at]
            x = k.linear(x, layer.o)
            x, residual = k.add_rms_norm(x, residual, layer.post_norm, c.rms_norm_eps)
            x = k.linear(k.silu_mul(k.linear(x, layer.gate_up)), layer.down)
        return k.add_rms_norm(x, residual, self.norm, c.rms_norm_eps)[0]

    def _attention(self, x: torch.Tensor, layer: Layer, batch: Batch, kv: KV) -> torch.Tensor:
        c, k = self.config, self.kernels
        heads = k.linear(x, layer.qkv).view(x.shape[0], -1, c.head_dim)
        q, key, v = heads.split_with_sizes((c.num_heads, c.num_kv_heads, c.num_kv_heads), 1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, key = k.rms_norm(q, layer.q_norm, c.rms_norm_eps), k.rms_norm(key, layer.k_norm, c.rms_norm_eps)
        q = k.rope_append(q, key, v, self.cos_sin, batch, kv)
        return k.attention(q, kv, batch, self.scale, layer.window)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[L, hidden] -> [L, vocab] float32."""
        return self.kernels.linear(hidden, self.head).float()

    def allocate_kv(
        self, pages: int, page_size: int, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> list[KV]:
        """K and V of every layer, zeroed: attention may read entries that no token wrote, weighted with zero.

        On a CPU they are strided views of one tensor, a token's values behind its keys.
        """
        c = self.config
        shape = (pages, page_size, c.num_kv_heads, c.head_dim)
        if torch.device(device).type == "cpu":
            both = (_zeros((*shape[:2], 2 * shape[2], shape[3]), device, dtype or self.dtype) for _ in self.layers)
            return [(one[:, :, : c.num_kv_heads], one[:, :, c.num_kv_heads :]) for one in both]
        return [
            (_zeros(shape, device, dtype or self.dtype), _zeros(shape, device, dtype or self.dtype))
            for _ in self.layers
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        linears = (w for layer in self.layers for w in (layer.qkv, layer.o, layer.gate_up, layer.down))
        return self.embedding.nbytes + self.head.nbytes + sum(weight.nbytes for weight in linears)


def _zeros(shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    """Zeros; on a CPU without touching the memory, so that pages that are never used cost nothing."""
    if torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    raw = np.zeros(int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(raw).view(dtype).view(shape)
