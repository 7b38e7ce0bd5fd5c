"""From a step to the tensors of its forward pass, and which of the logits belong to whom."""

from __future__ import annotations

from typing import NamedTuple

import torch

from redline.runtime.batch import Batch
from redline.runtime.step import Chunk, Step


class Place(NamedTuple):
    """Where a chunk's logits are: `prompt` rows from `first` on tell of the prompt, `draws` rows after them are drawn
    from (the draft's tokens and one more). Both may be 0."""

    chunk: Chunk
    first: int
    prompt: int
    draws: int


def assemble(step: Step, page_size: int) -> tuple[Batch, list[Place]]:
    """The batch on the CPU. Raises `RuntimeError` for tokens that only a device would know."""
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    logits_at: list[int] = []
    starts, lengths, tables, places = [0], [], [], []
    for chunk in step.chunks:
        request, start, end = chunk.request, chunk.start, chunk.start + chunk.length
        known = end - len(chunk.draft)
        if known > len(request.tokens):
            raise RuntimeError(f"{request.id}: position {known - 1} is not known yet; the CPU runs no steps ahead")
        at, pages = len(ids), request.pages
        ids += request.tokens[start:known]
        ids += chunk.draft
        positions += range(start, end)
        slots += [pages[p // page_size] * page_size + p % page_size for p in range(start, end)]
        starts.append(len(ids))
        lengths.append(end)
        tables.append(pages[: -(-end // page_size)])
        prompt, draws = _wanted(chunk)
        places.append(Place(chunk, len(logits_at), prompt, draws))
        logits_at += range(at, at + prompt)
        logits_at += range(len(ids) - draws, len(ids))
    widest = max(map(len, tables))
    padded = [table + [0] * (widest - len(table)) for table in tables]
    ids_at, positions_at, slots_at = torch.tensor((ids, positions, slots))
    batch = Batch(
        ids=ids_at,
        positions=positions_at,
        slots=slots_at,
        starts=torch.tensor(starts, dtype=torch.int32),
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        page_tables=torch.tensor(padded, dtype=torch.int32),
        logits_at=torch.tensor(logits_at, dtype=torch.int64),
        max_query=max(chunk.length for chunk in step.chunks),
        max_seq=max(lengths),
        host_starts=starts,
        host_seq_lens=lengths,
    )
    return batch, places


def _wanted(chunk: Chunk) -> tuple[int, int]:
    """(logits that tell of the next prompt token, logits that are drawn from)"""
    prompt, request = 0, chunk.request
    if request.sampling.prompt_logprobs is not None:
        prompt = max(0, min(chunk.start + chunk.length, request.prompt_len - 1) - chunk.start)
    return prompt, 1 + len(chunk.draft) if chunk.samples else 0
