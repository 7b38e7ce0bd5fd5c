"""How a step's attention is cut into programs: which sequences decode, which tiles the others make, how many splits."""

from __future__ import annotations

from typing import NamedTuple

import torch

from redline.runtime.batch import TILE, Batch

MOST_SPLITS = 64


class Plan(NamedTuple):
    """The first `decodes` sequences have one query token each. `tiles`: [n, 2] int32 of (sequence, first row), where
    rows are the sequence's query tokens times the heads of a group; None when there are only decodes."""

    decodes: int
    tiles: torch.Tensor | None
    block_m: int


def plan_of(batch: Batch, group: int, device: torch.device) -> Plan:
    """Uses the host's numbers where the batch has them; without, every sequence gets tiles for the longest one."""
    rows = int(batch.seq_lens.shape[0])
    if batch.decode_only:
        return Plan(rows, None, 16)
    longest = batch.max_query * group
    block_m = 128 if longest >= 512 else TILE
    if batch.host_starts is None:
        per = -(-longest // block_m)
        sequence = torch.arange(rows, device=device).repeat_interleave(per)
        first = torch.arange(per, device=device).repeat(rows) * block_m
        return Plan(0, torch.stack([sequence, first], dim=1).to(torch.int32).contiguous(), block_m)
    lengths = [b - a for a, b in zip(batch.host_starts, batch.host_starts[1:], strict=False)]
    decodes = next((i for i, n in enumerate(lengths) if n != 1), rows)
    tiles = [(i, first) for i in range(decodes, rows) for first in range(0, lengths[i] * group, block_m)]
    # the tiles with the longest context first, so that none of them starts when the others are done
    tiles.sort(key=lambda tile: -tile[1])
    return Plan(decodes, _sent(torch.tensor(tiles, dtype=torch.int32).reshape(-1, 2), device), block_m)


def _sent(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device, without waiting for what runs there."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers


def splits_for(programs: int, processors: int, longest: int) -> int:
    """A power of two that gives every multiprocessor about four programs; a split has at least 128 tokens of the
    longest context that may come."""
    wanted = max(1, min(4 * processors // max(1, programs), -(-longest // 128), MOST_SPLITS))
    return 1 << (wanted.bit_length() - 1)
