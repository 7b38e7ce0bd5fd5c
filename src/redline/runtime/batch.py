"""The tensors of one forward pass. One layout for all kernels, on the CPU and on the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


TILE = 64


@dataclass
class Batch:
    """T tokens of R sequences, ragged, end to end; decodes first.

    `ids`, `positions`: [T] int64. `slots`: [T] int64, page * page_size + offset, where this token's K and V go.
    `starts`: [R + 1] int32, where each sequence's tokens begin. `seq_lens`: [R] int32, context length including this
    step's tokens. `page_tables`: [R, P] int32, unused entries 0 (page 0 is never given out, so it is a safe target for
    padding). `logits_at`: [L] int64, the tokens whose logits are needed. `host_*` are the same numbers as Python
    lists, for kernels that plan on the host; a replayed graph has none. `tiles` [N, 2] int32, where the step is one:
    (sequence, first row) of every `TILE` rows of attention, a row being a query token and a head of a group.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    starts: torch.Tensor
    seq_lens: torch.Tensor
    page_tables: torch.Tensor
    logits_at: torch.Tensor
    max_query: int
    max_seq: int
    host_starts: list[int] | None = None
    host_seq_lens: list[int] | None = None
    tiles: torch.Tensor | None = None

    @property
    def decode_only(self) -> bool:
        return self.max_query == 1


def host(batch: Batch) -> tuple[list[int], list[int]]:
    """`starts` and `seq_lens` as Python lists."""
    if batch.host_starts is not None and batch.host_seq_lens is not None:
        return batch.host_starts, batch.host_seq_lens
    return batch.starts.tolist(), batch.seq_lens.tolist()
