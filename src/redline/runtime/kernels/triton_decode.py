"""`Draw` on Triton kernels: see `draw.py` for what it does and `triton_draw.py` for how."""

from __future__ import annotations

import torch
import triton

from redline.runtime.batch import Batch
from redline.runtime.kernels import triton_draw as kernels
from redline.runtime.state import Tables

PART = 2048
"""Tokens of the vocabulary to a program."""
WAYS = 8


class TritonDraw:
    """`pdl`: as in `TritonKernels`. `prepare`, a step's first kernel, starts the usual way."""

    def __init__(self, pdl: bool = False) -> None:
        self.pdl = pdl

    def prepare(self, tables: Tables, rows: torch.Tensor, batch: Batch) -> None:
        kernels.prepare_kernel[(rows.shape[0],)](
            rows, tables.token, tables.position, tables.pages, batch.ids, batch.positions, batch.slots,
            batch.seq_lens, batch.page_tables, tables.pages.stride(0), batch.page_tables.stride(0),
            tables.page_size, 256, num_warps=2,
        )  # fmt: skip

    def draw(
        self, logits: torch.Tensor, tables: Tables, rows: torch.Tensor, at: torch.Tensor, out: torch.Tensor
    ) -> None:
        count, vocab = logits.shape
        parts = triton.cdiv(vocab, PART)
        forced = torch.empty(count, dtype=torch.int32, device=logits.device)
        # four tensors: as parts of one, whether they are aligned would depend on the number of rows
        best, mass = (torch.empty((count, parts), dtype=torch.float32, device=logits.device) for _ in range(2))
        choice, bad = (torch.empty((count, parts), dtype=torch.int32, device=logits.device) for _ in range(2))
        kernels.filter_kernel[(count,)](
            logits, rows, at, tables.temperature, tables.top_k, tables.top_p, tables.min_p, tables.seed_low,
            tables.seed_high, forced, vocab, logits.stride(0), PART, WAYS, self.pdl,
            num_warps=8, launch_pdl=self.pdl,
        )  # fmt: skip
        kernels.part_kernel[(count, parts)](
            logits, rows, tables.temperature, best, choice, mass, bad, vocab, logits.stride(0), parts, PART,
            self.pdl, num_warps=4, launch_pdl=self.pdl,
        )  # fmt: skip
        kernels.choose_kernel[(count,)](
            logits, rows, at, tables.temperature, tables.seed_low, tables.seed_high, forced, best, choice, mass, bad,
            tables.token, tables.position, out, vocab, logits.stride(0), parts, tables.padding_row, PART,
            triton.next_power_of_2(parts), self.pdl, num_warps=4, launch_pdl=self.pdl,
        )  # fmt: skip
