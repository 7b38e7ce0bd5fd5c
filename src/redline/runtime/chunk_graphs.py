"""Steps of prompts, guesses and the decodes beside them as CUDA graphs, one for each of some numbers of tokens.

Such a step is a few hundred launches, which take the host 10 to 20 ms whatever their size; with up to a thousand
tokens the GPU needs less. Here it is one copy and one replay. A smaller step is padded: its spare tokens write to page
0, which is nobody's, spare tiles of the attention have nothing to see, and spare choices belong to nobody's row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from redline.runtime.batch import TILE, Batch
from redline.runtime.graph import Decoder, captured
from redline.runtime.layout import Layout, numbers_of
from redline.runtime.state import ALIGN, Sender
from redline.runtime.step import Chunk

TOKENS = (16, 32, 64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
FEW, FEW_UPTO = 4, 256
"""Steps of so many sequences, up to so many tokens, have graphs of their own: without tiles for many sequences, a long
context can be split among programs."""
PLACES = 64
"""Logits that a step has room for, at least; more where there are more sequences."""
NOTHING = 1 << 20
"""First row of a tile that no sequence has."""


class Size(NamedTuple):
    tokens: int
    sequences: int

    @property
    def places(self) -> int:
        return min(self.tokens, max(PLACES, self.sequences))

    def holds(self, other: Size, places: int) -> bool:
        return self.tokens >= other.tokens and self.sequences >= other.sequences and self.places >= places


class ChunkStep:
    """The step of one size, over buffers of its own. `logits` [places, V] and `tokens` [places] are good until the next
    step; they come in the order of `Layout.places`."""

    def __init__(self, size: Size, decoder: Decoder, logits: torch.Tensor) -> None:
        self.size, self.decoder, self.tables = size, decoder, decoder.tables
        config = decoder.model.config
        self.group = config.num_heads // config.num_kv_heads
        self.logits = logits[: size.places]
        device = self.tables.flat.device
        self.tokens = torch.zeros(size.places, dtype=torch.int32, device=device)
        tiles = size.tokens * self.group // TILE + size.sequences
        lengths = {"ids": size.tokens, "source": size.tokens, "positions": size.tokens, "slots": size.tokens}
        lengths |= {"starts": size.sequences + 1, "lens": size.sequences, "rows": size.sequences, "tiles": 2 * tiles}
        lengths |= {"places": size.places, "plain": size.places, "at": size.places}
        self._ends, end = {}, 0
        for name, length in lengths.items():
            self._ends[name] = slice(end, end + length)
            end += -(-length // ALIGN) * ALIGN
        self._blank = np.zeros(end, dtype=np.int32)
        for name in ("source", "rows", "plain"):
            self._blank[self._ends[name]] = self.tables.padding_row
        self._blank[self._ends["tiles"]][1::2] = NOTHING
        self.flat = torch.from_numpy(self._blank.copy()).to(device)

    def filled(self, chunks: Sequence[Chunk], layout: Layout) -> np.ndarray:
        """What `run` reads, for these chunks: to be copied to `flat`."""
        found = self._blank.copy()
        part = {name: found[where] for name, where in self._ends.items()}
        part["starts"][len(chunks) + 1 :] = sum(chunk.length for chunk in chunks)
        numbers_of(chunks, self.tables.page_size, part)
        tiles = [(first, i) for i, chunk in enumerate(chunks) for first in range(0, chunk.length * self.group, TILE)]
        tiles.sort(reverse=True)  # the longest contexts first, so that none of them starts when the others are done
        flat = np.array(tiles, dtype=np.int32)[:, ::-1].reshape(-1)
        part["tiles"][: len(flat)] = flat
        part["places"][: len(layout.places)] = layout.places
        part["plain"][: len(layout.plain)] = [chunk.request.row for chunk in layout.plain]
        part["at"][: len(layout.plain)] = [chunk.start + chunk.length for chunk in layout.plain]
        return found

    @torch.inference_mode()
    def run(self) -> None:
        part = {name: self.flat[where] for name, where in self._ends.items()}
        model, tables = self.decoder.model, self.tables
        batch = Batch(
            # tokens that only the device knows are 0 among the ids, and the others come from a row whose token is 0
            ids=(part["ids"] + tables.token.index_select(0, part["source"])).long(),
            positions=part["positions"].long(),
            slots=part["slots"].long(),
            starts=part["starts"],
            seq_lens=part["lens"],
            page_tables=tables.pages.index_select(0, part["rows"]),
            logits_at=part["places"].long(),
            max_query=self.size.tokens,
            max_seq=self.decoder.max_len,
            tiles=part["tiles"].view(-1, 2),
        )
        hidden = model.forward(batch, self.decoder.kv)
        if self.size.places == self.size.tokens:  # it gave all, in the order of the tokens
            hidden = hidden.index_select(0, batch.logits_at)
        self.logits.copy_(model.kernels.linear(hidden, model.head))
        self.decoder.draw.draw(self.logits, tables, part["plain"], part["at"], self.tokens)


class ChunkGraphs:
    """Captured steps, smallest first. Steps that fit none of them run eagerly."""

    def __init__(self, decoder: Decoder, most_tokens: int, most_sequences: int) -> None:
        self.decoder = decoder
        self.sizes = list(sizes_upto(most_tokens, most_sequences))
        self.note = "none"
        self._steps: dict[Size, ChunkStep] = {}
        self._graphs: dict[Size, torch.cuda.CUDAGraph] = {}

    def prepare(self) -> None:
        """Makes the buffers."""
        model = self.decoder.model
        most = max((size.places for size in self.sizes), default=0)
        device = self.decoder.tables.flat.device
        logits = torch.zeros((most, model.config.vocab_size), dtype=model.dtype, device=device)
        self._steps = {size: ChunkStep(size, self.decoder, logits) for size in self.sizes}

    def capture(self, progress: Callable[[str], None]) -> None:
        """From the largest down, as `Graphs` does. A size that does not fit is left out."""
        before, started, pool = torch.cuda.mem_get_info()[0], time.perf_counter(), torch.cuda.graph_pool_handle()
        failed = ""
        try:
            self.prepare()
            for size in reversed(self.sizes):
                self._graphs[size] = captured(self._steps[size].run, pool)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            failed = f"; larger ones only: {str(error).splitlines()[0][:160]}"
        used = before - torch.cuda.mem_get_info()[0]
        self._steps = {size: self._steps[size] for size in self.sizes if size in self._graphs}
        sizes = ",".join(dict.fromkeys(str(size.tokens) for size in self._steps)) or "none"
        self.note = f"{sizes} ({used / 2**20:.0f} MiB, {time.perf_counter() - started:.1f} s){failed}"
        progress(f"CUDA graphs for prompts of {self.note}")

    def fits(self, chunks: Sequence[Chunk], layout: Layout) -> ChunkStep | None:
        """The smallest step that holds these; none where log-probabilities of prompts are asked for."""
        if layout.prompts or not self._steps:
            return None
        wanted = Size(sum(chunk.length for chunk in chunks), len(chunks))
        return next((step for size, step in self._steps.items() if size.holds(wanted, len(layout.places))), None)

    def run(self, step: ChunkStep, chunks: Sequence[Chunk], layout: Layout, sender: Sender) -> None:
        sender.into(step.filled(chunks, layout), step.flat)
        graph = self._graphs.get(step.size)
        if graph is not None:
            graph.replay()
        else:
            step.run()

    def clear(self) -> None:
        self._graphs.clear()
        self._steps.clear()


def sizes_upto(most_tokens: int, most_sequences: int) -> Iterator[Size]:
    for tokens in (one for one in TOKENS if one <= most_tokens):
        if tokens <= FEW_UPTO and most_sequences > FEW:
            yield Size(tokens, FEW)
        yield Size(tokens, min(tokens, most_sequences))
