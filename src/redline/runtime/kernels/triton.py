"""Tier T1: redline's own Triton kernels behind the `Kernels` protocol. Nothing is compiled ahead; a kernel takes well
under a second on first use and is kept in Triton's cache on disk.

With TRITON_INTERPRET=1 set before the first import the same kernels run on CPU tensors, which is how they are tested
where there is no GPU.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from triton import next_power_of_2

from redline.runtime.batch import TILE, Batch
from redline.runtime.kernels import KV
from redline.runtime.kernels import triton_attention as attention_kernels
from redline.runtime.kernels import triton_pointwise as pointwise
from redline.runtime.kernels.plan import MOST_SPLITS, Plan, plan_of, splits_for
from redline.runtime.kernels.triton_decode_attention import decode_attention_kernel
from redline.runtime.kernels.triton_linear import Around, Way
from redline.runtime.linear import FP8, FP8_MAX, Fp8, Plain

LOG2E = 1.4426950408889634


def few(tokens: int) -> int:
    """Token counts that share a choice of product: 1, then up to 16, 32 and 64; 0 for more, and for none."""
    return next((most for most in (1, 16, 32, 64) if 0 < tokens <= most), 0)


class Attending(NamedTuple):
    """How decode attention is cut. `splits` 0: by `splits_for`; `block_n` tokens at a time."""

    splits: int = 0
    block_n: int = 64
    warps: int = 4
    stages: int = 3

    @property
    def code(self) -> Attending:
        """What the machine code depends on: not how many splits there are, but whether there are several."""
        return self._replace(splits=min(2, self.splits))


MEASURED = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Rows of a decode batch for which ways of cutting are compared."""


def cuts_of(programs: int, rows: int, processors: int, context: int) -> list[Attending]:
    """Splits around the usual number; with many rows, where a tile's shape matters most, other tiles too. `programs`:
    rows times kv heads."""
    usual = splits_for(programs, processors, context)
    splits = (usual, max(1, usual // 2), max(1, usual // 4), min(MOST_SPLITS, usual * 2))
    cuts = [Attending(n) for n in dict.fromkeys(splits)]
    if rows >= 16:
        cuts += [Attending(usual, *tile) for tile in ((128, 4, 2), (32, 2, 4))]
    return cuts


class TritonKernels:
    """See `Kernels`. `processors`: multiprocessors of the GPU, which a decode step's programs must fill. `pdl`: kernels
    are started while their predecessors run (`triton_overlap.py`)."""

    name = "triton"

    def __init__(self, processors: int = 132, pdl: bool = False) -> None:
        self.processors, self.pdl = processors, pdl
        self.attending: dict[int, Attending] = {}
        """Measured choice, by the rows of a decode batch."""
        self.products: dict[tuple[int, int, int, torch.dtype], Way] = {}
        """Measured choice: (`few` tokens, out, in, dtype of the weight) to a way. Others go to the library."""
        self._planned: tuple[Batch, Plan] | None = None

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        columns = x.shape[-1]
        flat = x.reshape(-1, columns)
        rows = flat.shape[0]
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        block = next_power_of_2(columns)
        per = max(1, 2048 // block)
        warps = 4 if block * per <= 4096 else 8
        if rows:
            pointwise.rms_norm_kernel[(triton.cdiv(rows, per),)](
                flat, weight, out, rows, flat.stride(0), columns, eps, block, per, self.pdl,
                num_warps=warps, launch_pdl=self.pdl,
            )  # fmt: skip
        return out

    def add_rms_norm(
        self, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, residual = x.contiguous(), residual.contiguous()
        columns = x.shape[-1]
        out = torch.empty_like(x)
        block = next_power_of_2(columns)
        if x.numel():
            pointwise.add_rms_norm_kernel[(x.numel() // columns,)](
                x, residual, weight, out, columns, eps, block, self.pdl,
                num_warps=4 if block <= 2048 else 8, launch_pdl=self.pdl,
            )  # fmt: skip
        return out, residual

    def rope_append(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos_sin: torch.Tensor, batch: Batch, kv: KV
    ) -> torch.Tensor:
        tokens, q_heads, dim = q.shape
        kv_heads = k.shape[1]
        q, k, v = _heads_dense(q), _heads_dense(k), _heads_dense(v)
        out = torch.empty((tokens, q_heads, dim), dtype=q.dtype, device=q.device)
        heads = min(16, next_power_of_2(q_heads + kv_heads))
        if tokens:
            pointwise.rope_append_kernel[(tokens, triton.cdiv(q_heads + kv_heads, heads))](
                q, k, v, cos_sin, batch.positions, batch.slots, out, kv[0], kv[1],
                q.stride(0), k.stride(0), v.stride(0), kv[0].stride(1), q_heads, kv_heads, dim,
                next_power_of_2(dim // 2), heads, self.pdl, num_warps=4, launch_pdl=self.pdl,
            )  # fmt: skip
        return out

    def attention(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        tokens, heads, dim = q.shape
        q = q.contiguous()
        out = torch.empty((tokens, heads * dim), dtype=q.dtype, device=q.device)
        kv_heads = kv[0].shape[2]
        plan = self._plan(batch, heads // kv_heads, q.device)
        if plan.decodes:
            # what was measured is for decodes alone: beside a prompt, a tile that only some numbers of rows have would
            # be compiled when that number first comes
            how = self.attending.get(plan.decodes, Attending()) if plan.tiles is None else Attending()
            usual = splits_for(plan.decodes * kv_heads, self.processors, batch.max_seq)
            how = how._replace(splits=how.splits or usual)
            self.attend(q, kv, batch, out, scale, window, plan._replace(tiles=None), how)
        if plan.tiles is not None and len(plan.tiles):
            splits = splits_for(len(plan.tiles) * kv_heads, self.processors, batch.max_seq)
            self.attend(q, kv, batch, out, scale, window, plan, Attending(splits))
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
        how: Attending,
    ) -> None:
        """One launch for the plan's tiles, or for its decodes when it has none, and one that joins the splits."""
        (tokens, heads, dim), kv_heads, tiles = q.shape, kv[0].shape[2], plan.tiles
        block_m = plan.block_m if tiles is not None else max(16, next_power_of_2(heads // kv_heads))
        block_d = max(16, next_power_of_2(dim))
        first, last = (0, plan.decodes) if tiles is None else (plan.decodes, tokens)
        splits = how.splits
        partial, logs = self._partial(last, heads, splits, dim, out)
        attention_kernels.attention_kernel[(plan.decodes if tiles is None else len(tiles), kv_heads, splits)](
            q, kv[0], kv[1], out, partial, logs, batch.starts if tiles is None else tiles,
            batch.starts, batch.seq_lens, batch.page_tables, scale * LOG2E, kv[0].stride(1),
            batch.page_tables.stride(0), window or 0,
            splits, heads // kv_heads, kv_heads, dim, kv[0].shape[1], splits > 1, tiles is not None, window is not None,
            "ieee" if q.dtype == torch.float32 else "tf32", block_m, how.block_n if block_d <= 128 else 32, block_d,
            self.pdl, num_warps=how.warps if block_m <= 64 else 8, num_stages=how.stages if block_m <= 16 else 3,
            launch_pdl=self.pdl,
        )  # fmt: skip
        if splits > 1 and last > first:
            self._join(partial, logs, out, (first, last), splits, dim)

    def decode_attention(
        self,
        heads: torch.Tensor,
        norms: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
        cos_sin: torch.Tensor,
        batch: Batch,
        kv: KV,
        scale: float,
        window: int | None,
        how: Attending | None = None,
    ) -> torch.Tensor:
        """`rope_append` and `attention` of one token per sequence. [B, (H + 2 K) * D] -> [B, H * D]; `norms`: gains of
        q and k heads."""
        rows, kv_heads, dim = heads.shape[0], kv[0].shape[2], kv[0].shape[3]
        group = heads.shape[1] // dim // kv_heads - 2
        how = how or self.attending.get(rows, Attending())
        splits = how.splits or splits_for(rows * kv_heads, self.processors, batch.max_seq)
        out = torch.empty((rows, kv_heads * group * dim), dtype=heads.dtype, device=heads.device)
        partial, logs = self._partial(rows, kv_heads * group, splits, dim, out)
        gains = norms or (out, out)
        block_d = max(16, next_power_of_2(dim))
        decode_attention_kernel[(rows, kv_heads, splits)](
            heads, *gains, cos_sin, kv[0], kv[1], out, partial, logs, batch.seq_lens, batch.page_tables,
            scale * LOG2E, eps, heads.stride(0), kv[0].stride(1), batch.page_tables.stride(0), window or 0, splits,
            group, kv_heads, dim, kv[0].shape[1], norms is not None, splits > 1, window is not None,
            "ieee" if heads.dtype == torch.float32 else "tf32", max(16, next_power_of_2(group)),
            how.block_n if block_d <= 128 else 32, block_d, self.pdl,
            num_warps=how.warps, num_stages=how.stages, launch_pdl=self.pdl,
        )  # fmt: skip
        if splits > 1:
            self._join(partial, logs, out, (0, rows), splits, dim)
        return out

    def foreign(self, rows: int) -> bool:
        """Whether decode attention of so many rows is another library's."""
        return False

    def _partial(
        self, rows: int, heads: int, splits: int, dim: int, out: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Room for what splits compute; `out` in its place where there is one split."""
        if splits == 1:
            return out, out
        partial = torch.empty((rows, heads, splits, dim), dtype=torch.float32, device=out.device)
        return partial, torch.empty((rows, heads, splits), dtype=torch.float32, device=out.device)

    def _join(
        self, partial: torch.Tensor, logs: torch.Tensor, out: torch.Tensor, rows: tuple[int, int], splits: int, dim: int
    ) -> None:
        """Of rows [first, last). Their place is a number, not part of a pointer, whose alignment would vary with it."""
        (first, last), heads = rows, logs.shape[1]
        attention_kernels.join_splits_kernel[((last - first) * heads,)](
            partial, logs, out, first * heads, splits, dim, MOST_SPLITS, max(16, next_power_of_2(dim)), self.pdl,
            num_warps=4, launch_pdl=self.pdl,
        )  # fmt: skip

    def _plan(self, batch: Batch, group: int, device: torch.device) -> Plan:
        if batch.tiles is not None:
            return Plan(0, batch.tiles, TILE)
        if self._planned is None or self._planned[0] is not batch:
            self._planned = (batch, plan_of(batch, group, device))
        return self._planned[1]

    def silu_mul(self, x: torch.Tensor) -> torch.Tensor:
        x = x if x.stride(-1) == 1 else x.contiguous()
        rows, columns = x.shape[0], x.shape[-1] // 2
        out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
        block = min(1024, next_power_of_2(columns))
        if rows:
            pointwise.silu_mul_kernel[(rows, triton.cdiv(columns, block))](
                x, out, x.stride(0), columns, block, self.pdl, num_warps=4, launch_pdl=self.pdl
            )
        return out

    def linear(self, x: torch.Tensor, weight: Any) -> torch.Tensor:
        if isinstance(weight, Plain | Fp8):
            way = self.products.get((few(x.shape[0]), *weight.weight.shape, weight.weight.dtype))
            if way is not None:
                return self.alone(way, x, weight)
            if isinstance(weight, Fp8) and weight.native and weight.bias is None:
                return scaled_product(*self.quantize_rows(x.contiguous()), weight, x.dtype)
        result: torch.Tensor = weight.apply(x)
        return result

    def alone(self, way: Way, x: torch.Tensor, weight: Plain | Fp8) -> torch.Tensor:
        """A product with nothing around it."""
        if way.rounds:
            rounded, scales = self.quantize_rows(x.contiguous())
            return way.product(rounded, weight, Around(scales=scales, dtype=x.dtype, pdl=self.pdl))
        return way.product(x.contiguous(), weight, Around(pdl=self.pdl))

    def quantize_rows(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, N] -> float8 [T, N] and float32 scales [T, 1]."""
        rows, columns = x.shape
        out, scales = _float8(rows, columns, x.device)
        if rows:
            pointwise.quantize_rows_kernel[(rows,)](
                x, out, scales, columns, FP8_MAX, next_power_of_2(columns), self.pdl,
                num_warps=4 if columns <= 4096 else 8, launch_pdl=self.pdl,
            )  # fmt: skip
        return out, scales

    def norm_quantize(
        self, x: torch.Tensor | None, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`quantize_rows(norm(x + residual))`; the sum is written to the residual. `x` None adds nothing."""
        rows, columns = residual.shape
        out, scales = _float8(rows, columns, residual.device)
        pointwise.norm_quantize_kernel[(rows,)](
            residual if x is None else x, residual, weight, out, scales, columns, eps, FP8_MAX, x is not None,
            next_power_of_2(columns), self.pdl, num_warps=4 if columns <= 2048 else 8, launch_pdl=self.pdl,
        )  # fmt: skip
        return out, scales

    def silu_quantize(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`quantize_rows(silu_mul(x))`."""
        rows, columns = x.shape[0], x.shape[1] // 2
        out, scales = _float8(rows, columns, x.device)
        pointwise.silu_quantize_kernel[(rows,)](
            x, out, scales, columns, FP8_MAX, next_power_of_2(columns), self.pdl, num_warps=8, launch_pdl=self.pdl
        )
        return out, scales


def scaled_product(
    rounded: torch.Tensor, scales: torch.Tensor, weight: Plain | Fp8, dtype: torch.dtype
) -> torch.Tensor:
    """Float8 rows with their scales times a float8 weight, by the library."""
    assert isinstance(weight, Fp8)
    return torch._scaled_mm(
        rounded,
        weight.weight.t(),
        scale_a=scales,
        scale_b=weight.scale[None, :],
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    ).to(dtype)


def _float8(rows: int, columns: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for quantized rows and their scales."""
    return (
        torch.empty((rows, columns), dtype=FP8, device=device),
        torch.empty((rows, 1), dtype=torch.float32, device=device),
    )


def _heads_dense(x: torch.Tensor) -> torch.Tensor:
    """Heads of one token end to end; tokens may be strided, as in a slice of the fused projection."""
    return x if x.stride(-1) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
