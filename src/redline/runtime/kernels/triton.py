"""Tier T1: redline's own Triton kernels behind the `Kernels` protocol. Nothing is compiled ahead; a kernel takes well
under a second on first use and is kept in Triton's cache on disk.

With TRITON_INTERPRET=1 set before the first import the same kernels run on CPU tensors, which is how they are tested
where there is no GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton

from redline.runtime.batch import Batch
from redline.runtime.kernels import KV
from redline.runtime.kernels import triton_attention as attention_kernels
from redline.runtime.kernels import triton_pointwise as pointwise
from redline.runtime.kernels.plan import MOST_SPLITS, Plan, plan_of, splits_for
from redline.runtime.kernels.triton_linear import Product
from redline.runtime.linear import FP8, FP8_MAX, Fp8, Plain

LOG2E = 1.4426950408889634


def power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


class TritonKernels:
    """See `Kernels`. `processors`: multiprocessors of the GPU, which a decode step's programs must fill."""

    name = "triton"

    def __init__(self, processors: int = 132) -> None:
        self.processors = processors
        self.splits: dict[int, int] = {}
        """Measured choice: rows of a decode batch to splits of the context. Others follow `splits_for`."""
        self.products: dict[tuple[int, int, int, torch.dtype], Product] = {}
        """Measured choice: (tokens, out, in, dtype of the weight) to a way of multiplying. Others go to the library."""
        self._planned: tuple[Batch, Plan] | None = None

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        columns = x.shape[-1]
        flat = x.reshape(-1, columns)
        rows = flat.shape[0]
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        block = power_of_two(columns)
        per = max(1, 2048 // block)
        warps = 4 if block * per <= 4096 else 8
        if rows:
            pointwise.rms_norm_kernel[(triton.cdiv(rows, per),)](
                flat, weight, out, rows, flat.stride(0), columns, eps, block, per, num_warps=warps
            )
        return out

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, residual = x.contiguous(), residual.contiguous()
        columns = x.shape[-1]
        out = torch.empty_like(x)
        block = power_of_two(columns)
        if x.numel():
            pointwise.add_rms_norm_kernel[(x.numel() // columns,)](
                x, residual, weight, out, columns, eps, block, num_warps=4 if block <= 2048 else 8
            )
        return out, residual

    def rope_append(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos_sin: torch.Tensor, batch: Batch, kv: KV
    ) -> torch.Tensor:
        tokens, q_heads, dim = q.shape
        kv_heads = k.shape[1]
        q, k, v = _heads_dense(q), _heads_dense(k), _heads_dense(v)
        out = torch.empty((tokens, q_heads, dim), dtype=q.dtype, device=q.device)
        heads = min(16, power_of_two(q_heads + kv_heads))
        if tokens:
            pointwise.rope_append_kernel[(tokens, triton.cdiv(q_heads + kv_heads, heads))](
                q, k, v, cos_sin, batch.positions, batch.slots, out, kv[0], kv[1],
                q.stride(0), k.stride(0), v.stride(0), kv[0].stride(1), q_heads, kv_heads, dim, power_of_two(dim // 2),
                heads,
                num_warps=4,
            )  # fmt: skip
        return out

    def attention(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        tokens, heads, dim = q.shape
        q = q.contiguous()
        out = torch.empty((tokens, heads * dim), dtype=q.dtype, device=q.device)
        kv_heads = kv[0].shape[2]
        plan = self._plan(batch, heads // kv_heads, q.device)
        if plan.decodes:
            splits = self.splits.get(plan.decodes) or splits_for(
                plan.decodes * kv_heads, self.processors, batch.max_seq
            )
            self.attend(q, kv, batch, out, scale, window, plan._replace(tiles=None), splits)
        if plan.tiles is not None and len(plan.tiles):
            splits = splits_for(len(plan.tiles) * kv_heads, self.processors, batch.max_seq)
            self.attend(q, kv, batch, out, scale, window, plan, splits)
        return out

    def attend(
        self,
        q: torch.Tensor,
        kv: KV,
        batch: Batch,
        out: torch.Tensor,
        scale: float,
        window: int | None,
        plan: Plan,
        splits: int,
    ) -> None:
        """One launch for the plan's tiles, or for its decodes when it has none, and one that joins the splits."""
        (tokens, heads, dim), kv_heads, tiles = q.shape, kv[0].shape[2], plan.tiles
        block_m = plan.block_m if tiles is not None else max(16, power_of_two(heads // kv_heads))
        block_d = max(16, power_of_two(dim))
        first, last = (0, plan.decodes) if tiles is None else (plan.decodes, tokens)
        partial, logs = out, out
        if splits > 1:
            partial = torch.empty((last, heads, splits, dim), dtype=torch.float32, device=q.device)
            logs = torch.empty((last, heads, splits), dtype=torch.float32, device=q.device)
        attention_kernels.attention_kernel[(plan.decodes if tiles is None else len(tiles), kv_heads, splits)](
            q, kv[0], kv[1], out, partial, logs, batch.starts if tiles is None else tiles,
            batch.starts, batch.seq_lens, batch.page_tables, scale * LOG2E, kv[0].stride(1),
            batch.page_tables.stride(0), window or 0,
            splits, heads // kv_heads, kv_heads, dim, kv[0].shape[1], splits > 1, tiles is not None, window is not None,
            "ieee" if q.dtype == torch.float32 else "tf32", block_m, 64 if block_d <= 128 else 32, block_d,
            num_warps=4 if block_m <= 64 else 8, num_stages=3 if block_m <= 16 else 2,
        )  # fmt: skip
        if splits > 1 and last > first:
            attention_kernels.join_splits_kernel[((last - first) * heads,)](
                partial[first:], logs[first:], out[first:], splits, dim, MOST_SPLITS, block_d, num_warps=4,
            )  # fmt: skip

    def _plan(self, batch: Batch, group: int, device: torch.device) -> Plan:
        if self._planned is None or self._planned[0] is not batch:
            self._planned = (batch, plan_of(batch, group, device))
        return self._planned[1]

    def silu_mul(self, x: torch.Tensor) -> torch.Tensor:
        x = x if x.stride(-1) == 1 else x.contiguous()
        rows, columns = x.shape[0], x.shape[-1] // 2
        out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
        block = min(1024, power_of_two(columns))
        if rows:
            pointwise.silu_mul_kernel[(rows, triton.cdiv(columns, block))](
                x, out, x.stride(0), columns, block, num_warps=4
            )
        return out

    def linear(self, x: torch.Tensor, weight: Any) -> torch.Tensor:
        if isinstance(weight, Plain | Fp8):
            way = self.products.get((x.shape[0], *weight.weight.shape, weight.weight.dtype))
            if way is not None:
                return way(x.contiguous(), weight)
            if isinstance(weight, Fp8) and weight.native and weight.bias is None:
                return self._scaled(x.contiguous(), weight)
        result: torch.Tensor = weight.apply(x)
        return result

    def quantize_rows(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, N] -> float8 [T, N] and float32 scales [T, 1]."""
        rows, columns = x.shape
        out = torch.empty((rows, columns), dtype=FP8, device=x.device)
        scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
        if rows:
            pointwise.quantize_rows_kernel[(rows,)](
                x, out, scales, columns, FP8_MAX, power_of_two(columns), num_warps=4 if columns <= 4096 else 8
            )
        return out, scales

    def _scaled(self, x: torch.Tensor, weight: Fp8) -> torch.Tensor:
        rounded, scales = self.quantize_rows(x)
        return torch._scaled_mm(
            rounded,
            weight.weight.t(),
            scale_a=scales,
            scale_b=weight.scale[None, :],
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        ).to(x.dtype)


def _heads_dense(x: torch.Tensor) -> torch.Tensor:
    """Heads of one token end to end; tokens may be strided, as in a slice of the fused projection."""
    return x if x.stride(-1) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
