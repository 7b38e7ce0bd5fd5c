"""Tier T2: FlashInfer's XQA for decode attention, over redline's Triton kernels for everything else.

XQA reads lengths and page tables on the device and plans nothing on the host, so it can be captured. It is compiled
on first use, which takes about a minute of nvcc: unless it was asked for by name, it is used only where that was done
before. Whether it beats the Triton kernel at a batch size is measured at start (`choose.py`). Calls as of 0.6.14.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from redline.runtime.batch import Batch
from redline.runtime.kernels import KV
from redline.runtime.kernels.triton import TritonKernels

if TYPE_CHECKING:
    from redline.runtime.architecture import ModelConfig

WORKSPACE = 136 << 20
"""Bytes: XQA takes 8 MiB for semaphores, which must be zero at first, and the rest for partial results."""
PAGE_SIZES = (16, 32, 64, 128)


def why_not(
    model: ModelConfig, page_size: int, dtype: torch.dtype, *, build: bool, progress: Callable[[str], None]
) -> str:
    """Why XQA cannot serve this model here; empty when it can. `build`: compile what is missing."""
    if importlib.util.find_spec("flashinfer") is None:
        return "FlashInfer is not installed"
    if dtype not in (torch.bfloat16, torch.float16) or page_size not in PAGE_SIZES:
        return f"XQA has bfloat16 and float16, pages of {PAGE_SIZES}"
    if model.head_dim % 16 or model.head_dim > 256:
        return f"XQA has no heads of {model.head_dim}"
    if torch.cuda.get_device_capability()[0] not in (9, 12):
        return "XQA runs on compute capability 9 and 12"
    try:
        return _build(model, page_size, dtype, build, progress)
    except Exception as error:  # whatever a foreign build raises, there is another kernel
        return f"FlashInfer's XQA did not build: {type(error).__name__}: {str(error)[:200]}"


def _build(model: ModelConfig, page_size: int, dtype: torch.dtype, build: bool, progress: Callable[[str], None]) -> str:
    from flashinfer.jit.xqa import gen_xqa_module

    group = model.num_heads // model.num_kv_heads
    for windowed in sorted({window is not None for window in model.window}):
        spec = gen_xqa_module(dtype, dtype, page_size, model.head_dim, group, windowed, dtype, 1)
        if not spec.is_compiled and not build:
            return "FlashInfer's XQA is not compiled yet; --kernels flashinfer does that once, in about a minute"
        if not spec.is_compiled:
            progress("compiling FlashInfer's XQA")
        spec.build_and_load()
    return ""


class FlashInferKernels(TritonKernels):
    """See `Kernels`. `xqa_rows`: decode batches for which XQA was measured to be the faster."""

    name = "flashinfer"

    def __init__(self, processors: int, device: torch.device, pdl: bool = False) -> None:
        super().__init__(processors, pdl)
        self.xqa_rows: set[int] = set()
        self._workspace = torch.zeros(WORKSPACE, dtype=torch.uint8, device=device)

    def foreign(self, rows: int) -> bool:
        return rows in self.xqa_rows

    def attention(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        if batch.decode_only and q.shape[0] in self.xqa_rows:
            return self.xqa(q, kv, batch, scale, window)
        return super().attention(q, kv, batch, scale, window)

    def xqa(self, q: torch.Tensor, kv: KV, batch: Batch, scale: float, window: int | None) -> torch.Tensor:
        """Decode attention by FlashInfer: one query token per sequence. [R, H, D] -> [R, H * D]."""
        from flashinfer.decode import xqa_batch_decode_with_kv_cache

        q = q.contiguous()
        out = torch.empty_like(q)
        lengths: Any = batch.seq_lens.view(torch.uint32)
        xqa_batch_decode_with_kv_cache(
            q,
            kv,
            self._workspace,
            batch.page_tables,
            lengths,
            batch.max_seq,
            bmm1_scale=scale,
            bmm2_scale=1.0,
            window_left=-1 if window is None else window - 1,
            out=out,
            kv_layout="NHD",
        )
        return out.view(q.shape[0], -1)
