"""The numbers of a step that mixes prompts and decodes, laid out on the host for one copy to the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from redline.runtime.batch import Batch
from redline.runtime.request import Request
from redline.runtime.state import Sender, Tables
from redline.runtime.step import Chunk


@dataclass
class Layout:
    """What the logits of a step are for. They come in this order: `plain`, chunks that choose one token each; `drafts`,
    chunks that verify, with one more place than they have guesses; `prompts`, (chunk, places) of prompt tokens whose
    log-probabilities were asked for."""

    plain: list[Chunk] = field(default_factory=list)
    drafts: list[Chunk] = field(default_factory=list)
    prompts: list[tuple[Chunk, int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Of all logits: which tokens of the step they follow."""

    @property
    def drafted(self) -> int:
        return sum(len(chunk.draft) + 1 for chunk in self.drafts)

    def in_order(self, hidden: torch.Tensor) -> torch.Tensor:
        """From the order of the step's tokens, in which the model gives them, to that of `places`."""
        order = np.argsort(np.argsort(self.places))
        if bool((order == np.arange(len(order))).all()):
            return hidden
        return hidden.index_select(0, torch.from_numpy(order).to(hidden.device))


def layout_of(chunks: Sequence[Chunk]) -> Layout:
    layout = Layout()
    starts = np.cumsum([0, *(chunk.length for chunk in chunks)]).tolist()
    drafted: list[int] = []
    prompted: list[int] = []
    for chunk, first, end in zip(chunks, starts, starts[1:], strict=False):
        if chunk.samples and chunk.draft:
            layout.drafts.append(chunk)
            drafted += range(end - len(chunk.draft) - 1, end)
        elif chunk.samples:
            layout.plain.append(chunk)
            layout.places.append(end - 1)
        asked = prompt_places(chunk)
        if asked:
            layout.prompts.append((chunk, asked))
            prompted += range(first, first + asked)
    layout.places += drafted + prompted
    return layout


def prompt_places(chunk: Chunk) -> int:
    """How many of the chunk's first tokens are followed by a prompt token whose log-probability was asked for."""
    request = chunk.request
    if request.sampling.prompt_logprobs is None:
        return 0
    return max(0, min(chunk.length, request.prompt_len - 1 - chunk.start))


def batch_of(chunks: Sequence[Chunk], layout: Layout, tables: Tables, sender: Sender) -> tuple[Batch, torch.Tensor]:
    """The batch on the device, and the table rows of `layout.plain`, int32. Tokens that only the device knows come from
    the tables, as do the pages: the tables must be up to date.
    """
    starts = np.cumsum([0, *(chunk.length for chunk in chunks)]).tolist()
    lens = [chunk.start + chunk.length for chunk in chunks]
    rows, plain = ([chunk.request.row for chunk in some] for some in (chunks, layout.plain))
    ids, positions, slots, unknown = _numbers(chunks, starts, tables.page_size)
    parts = (ids, positions, slots, starts, lens, rows, sorted(layout.places), plain, unknown)
    sent = torch.split(
        sender.send(np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])), [len(part) for part in parts]
    )
    long = sent[0].long()
    if unknown:
        pairs = sent[8].view(-1, 2).long()
        long[pairs[:, 0]] = tables.token[pairs[:, 1]].long()
    batch = Batch(
        ids=long,
        positions=sent[1].long(),
        slots=sent[2].long(),
        starts=sent[3].clone(),  # a part of a buffer is not aligned as kernels expect
        seq_lens=sent[4].clone(),
        page_tables=tables.pages.index_select(0, sent[5].long()),
        logits_at=sent[6].long(),
        max_query=max(chunk.length for chunk in chunks),
        max_seq=max(lens),
        host_starts=starts,
        host_seq_lens=lens,
    )
    return batch, sent[7].clone()


def _numbers(
    chunks: Sequence[Chunk], starts: list[int], page_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Ids, positions and slots of all tokens; then (token, table row) of each whose id only the device knows."""
    ids, positions, slots = (np.zeros(starts[-1], dtype=np.int32) for _ in range(3))
    unknown: list[int] = []
    for chunk, first in zip(chunks, starts, strict=False):
        end = first + chunk.length
        tokens = _tokens(chunk)
        if tokens is None:
            unknown += (first, chunk.request.row)
        else:
            ids[first:end] = tokens
        at = np.arange(chunk.start, chunk.start + chunk.length)
        positions[first:end] = at
        slots[first:end] = _slots(chunk.request, at, page_size)
    return ids, positions, slots, unknown


def _tokens(chunk: Chunk) -> list[int] | None:
    """The chunk's tokens; None for one that only the device knows."""
    tokens = chunk.request.tokens
    end = chunk.start + chunk.length - len(chunk.draft)
    if chunk.start >= len(tokens):
        return None
    return [*tokens[chunk.start : end], *chunk.draft]


def _slots(request: Request, at: np.ndarray, page_size: int) -> np.ndarray:
    first = int(at[0]) // page_size
    pages = np.asarray(request.pages[first : int(at[-1]) // page_size + 1], dtype=np.int64)
    slots: np.ndarray = pages[at // page_size - first] * page_size + at % page_size
    return slots
