"""What changes the logits before a token is chosen: grammar, bias, `min_tokens`, penalties, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from redline.runtime.penalties import penalise, penalises

if TYPE_CHECKING:
    from redline.runtime.sampler import Row

NEVER = float("-inf")


def edited(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """[R, V] -> [R, V]: `logits` itself when no row asks for anything, otherwise a changed copy."""
    masked = [i for i, row in enumerate(rows) if row.matcher is not None]
    biased = [i for i, row in enumerate(rows) if row.sampling.logit_bias]
    held = [i for i, row in enumerate(rows) if row.matcher is None and _holds(row)]
    penalised = [i for i, row in enumerate(rows) if penalises(row.sampling)]
    if not (masked or biased or held or penalised):
        return logits
    logits = logits.clone()
    if masked:
        _mask(logits, masked, [rows[i] for i in masked])
    if biased:
        at = [i for i in biased for _ in rows[i].sampling.logit_bias]
        pairs = [pair for i in biased for pair in rows[i].sampling.logit_bias]
        bias = torch.tensor([value for _, value in pairs], device=logits.device, dtype=logits.dtype)
        logits.index_put_(_places(logits, at, [token for token, _ in pairs]), bias, accumulate=True)
    if held:
        at = [i for i in held for _ in rows[i].sampling.hold_ids]
        ids = [token for i in held for token in rows[i].sampling.hold_ids]
        logits.index_put_(_places(logits, at, ids), torch.tensor(NEVER, device=logits.device))
    if penalised:
        penalise(logits, penalised, [rows[i] for i in penalised])
    return logits


def words(row: Row, vocab: int) -> np.ndarray:
    """The grammar's mask for the row's place, uint32 words; the matcher is left as it was."""
    if row.mask is not None:
        return row.mask
    assert row.matcher is not None
    mask = empty_mask(vocab)
    for token in row.draft:
        row.matcher.advance(token)
    try:
        row.matcher.fill(mask.data)
    finally:
        if row.draft:
            row.matcher.rollback(len(row.draft))
    return mask


def empty_mask(vocab: int) -> np.ndarray:
    return np.zeros((vocab + 31) // 32, dtype=np.uint32)


def _holds(row: Row) -> bool:
    s = row.sampling
    return bool(s.min_tokens and s.hold_ids) and row.generated < s.min_tokens


def _allowed(row: Row, vocab: int) -> np.ndarray:
    """The grammar's mask, without what `min_tokens` holds back unless the grammar leaves nothing else."""
    mask = words(row, vocab)
    if not _holds(row):
        return mask
    without = mask.copy()
    for token in row.sampling.hold_ids:
        without[token >> 5] &= ~np.uint32(1 << (token & 31))
    return without if without.any() else mask


def _places(logits: torch.Tensor, at: list[int], ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(at, device=logits.device), torch.tensor(ids, device=logits.device)


def _mask(logits: torch.Tensor, at: list[int], rows: Sequence[Row]) -> None:
    vocab = logits.shape[-1]
    packed = np.stack([_allowed(row, vocab) for row in rows])
    bits = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")[:, :vocab]
    forbidden = torch.from_numpy(bits == 0).to(logits.device)
    if len(at) == logits.shape[0]:
        logits.masked_fill_(forbidden, NEVER)
    else:
        place = torch.tensor(at, device=logits.device)
        logits.index_copy_(0, place, logits.index_select(0, place).masked_fill_(forbidden, NEVER))
