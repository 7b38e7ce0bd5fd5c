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


def batch_of(
    chunks: Sequence[Chunk], layout: Layout, tables: Tables, sender: Sender
) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """The batch on the device; of `layout.plain` the table rows and the positions of the tokens to come, int32. Tokens
    that only the device knows come from the tables, as do the pages: the tables must be up to date.
    """
    tokens, count = sum(chunk.length for chunk in chunks), len(chunks)
    lengths = dict.fromkeys(("ids", "source", "positions", "slots"), tokens) | {"starts": count + 1}
    part = {name: np.zeros(n, np.int32) for name, n in (lengths | dict.fromkeys(("lens", "rows"), count)).items()}
    part["source"][:] = tables.padding_row  # whose token is 0
    numbers_of(chunks, tables.page_size, part)
    part["places"] = np.array(sorted(layout.places), dtype=np.int32)
    part["plain"] = np.array([chunk.request.row for chunk in layout.plain], dtype=np.int32)
    part["at"] = np.array([chunk.start + chunk.length for chunk in layout.plain], dtype=np.int32)
    sizes = [len(numbers) for numbers in part.values()]
    sent = dict(zip(part, torch.split(sender.send(np.concatenate(list(part.values()))), sizes), strict=True))
    batch = Batch(
        ids=(sent["ids"] + tables.token.index_select(0, sent["source"])).long(),
        positions=sent["positions"].long(),
        slots=sent["slots"].long(),
        starts=sent["starts"].clone(),  # a part of a buffer is not aligned as kernels expect
        seq_lens=sent["lens"].clone(),
        page_tables=tables.pages.index_select(0, sent["rows"]),
        logits_at=sent["places"].long(),
        max_query=max(chunk.length for chunk in chunks),
        max_seq=int(part["lens"].max()),
        host_starts=part["starts"].tolist(),
        host_seq_lens=part["lens"].tolist(),
    )
    return batch, sent["plain"].clone(), sent["at"].clone()


def numbers_of(chunks: Sequence[Chunk], page_size: int, part: dict[str, np.ndarray]) -> None:
    """Fills `ids`, `positions` and `slots` of all tokens, `starts`, `lens` and `rows` of all sequences. `source` gets
    the table row of a token whose id only the device knows; its id stays as it is."""
    ids, positions, slots, source = (part[name] for name in ("ids", "positions", "slots", "source"))
    starts, lens, rows = part["starts"], part["lens"], part["rows"]
    first = 0
    for i, chunk in enumerate(chunks):
        request, start = chunk.request, chunk.start
        end = first + chunk.length
        if start >= len(request.tokens):
            source[first] = request.row
        elif chunk.length == 1:
            ids[first] = request.tokens[start]
        else:
            ids[first:end] = _tokens(chunk)
        if chunk.length == 1:  # most are, and arrays are slow for them
            positions[first] = start
            slots[first] = request.pages[start // page_size] * page_size + start % page_size
        else:
            at = np.arange(start, start + chunk.length)
            positions[first:end] = at
            slots[first:end] = _slots(request, at, page_size)
        starts[i], lens[i], rows[i] = first, start + chunk.length, request.row
        first = end
    starts[len(chunks)] = first


def _tokens(chunk: Chunk) -> list[int]:
    return [*chunk.request.tokens[chunk.start : chunk.start + chunk.length - len(chunk.draft)], *chunk.draft]


def _slots(request: Request, at: np.ndarray, page_size: int) -> np.ndarray:
    first = int(at[0]) // page_size
    pages = np.asarray(request.pages[first : int(at[-1]) // page_size + 1], dtype=np.int64)
    slots: np.ndarray = pages[at // page_size - first] * page_size + at % page_size
    return slots
