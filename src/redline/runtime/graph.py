"""One decode step as a function of the tables alone, and one CUDA graph of it per batch bucket.

The step reads which rows are active, their last tokens and positions, runs the model, chooses tokens and advances the
rows: a replay needs nothing from the host, and the next replay can be enqueued before this one's tokens are known here.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from redline.runtime import late
from redline.runtime.batch import Batch
from redline.runtime.kernels import KV
from redline.runtime.kernels.draw import Draw
from redline.runtime.state import Tables

if TYPE_CHECKING:
    from redline.runtime.kernels.triton_step import DecodeStep
    from redline.runtime.model import Model


def buckets_upto(most: int) -> list[int]:
    """Batch sizes that get a graph: powers of two to 16, then steps of 8, 16 and 32, so that padding stays small where
    a step is bound by arithmetic. The last is `most`."""
    sizes = [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128]
    sizes += list(range(160, 257, 32)) + list(range(320, 1025, 64))
    return [size for size in sizes if size < most] + [most]


class Decoder:
    """The step, and the buffers that all buckets share. Kernels in it must not read from the device."""

    def __init__(
        self,
        model: Model,
        draw: Draw,
        tables: Tables,
        kv: Sequence[KV],
        max_len: int,
        step: DecodeStep | None = None,
    ) -> None:
        self.model, self.draw, self.tables, self.kv, self.step = model, draw, tables, kv, step
        self.max_len = max_len
        most = tables.padding_row
        device = tables.flat.device

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.tokens = zeros(most)
        """What the last step chose, in the order of the active rows."""
        self._whole = Batch(
            ids=zeros(most, dtype=torch.int64),
            positions=zeros(most, dtype=torch.int64),
            slots=zeros(most, dtype=torch.int64),
            starts=torch.arange(most + 1, dtype=torch.int32, device=device),
            seq_lens=zeros(most),
            page_tables=zeros(most, tables.pages_per_row),
            logits_at=torch.arange(most, dtype=torch.int64, device=device),
            max_query=1,
            max_seq=max_len,
        )
        self._logits = zeros(most, model.config.vocab_size, dtype=model.dtype)

    def batch(self, bucket: int) -> Batch:
        """A new one each time: kernels take a batch that they have seen for one with the same lengths."""
        whole = self._whole
        return Batch(
            ids=whole.ids[:bucket],
            positions=whole.positions[:bucket],
            slots=whole.slots[:bucket],
            starts=whole.starts[: bucket + 1],
            seq_lens=whole.seq_lens[:bucket],
            page_tables=whole.page_tables[:bucket],
            logits_at=whole.logits_at[:bucket],
            max_query=1,
            max_seq=whole.max_seq,
        )

    @torch.inference_mode()
    def run(self, bucket: int) -> None:
        """Decodes the first `bucket` active rows: their tokens go to `tokens` and into the tables."""
        batch = self.batch(bucket)
        rows = self.tables.active[:bucket]
        self.draw.prepare(self.tables, rows, batch)
        logits = self.logits(bucket)
        if self.step is not None:
            self.step.logits(batch, self.kv, logits)
        else:
            hidden = self.model.forward(batch, self.kv)
            # what `model.logits` does, into memory that all graphs share; the choice takes them as float32
            logits.copy_(self.model.kernels.linear(hidden, self.model.head))
        # a token's position is the length of what precedes it
        self.draw.draw(logits, self.tables, rows, batch.seq_lens, self.tokens[:bucket])

    def logits(self, bucket: int) -> torch.Tensor:
        """Of the bucket's last run or replay, [bucket, V] in the model's dtype; good until the next step."""
        return self._logits[:bucket]


def captured(work: Callable[[], object], pool: Any = None) -> torch.cuda.CUDAGraph:
    """A graph of what `work` launches. It is run once before: kernels compile, libraries pick and take workspaces,
    which a capture may not. `torch.cuda.graph` does the same and also empties caches each time, which takes longer."""
    started = time.perf_counter()
    side = _capture_stream()
    side.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    collecting = gc.isenabled()
    gc.disable()  # a collected tensor or event would be freed in the middle of the capture
    try:
        with torch.cuda.stream(side):
            work()
            torch.cuda.synchronize()
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with suppress(RuntimeError):  # the capture is void already; what voided it is what to tell
                    graph.capture_end()
                raise
            graph.capture_end()
    finally:
        if collecting:
            gc.enable()
    torch.cuda.current_stream().wait_stream(side)
    late.captured(time.perf_counter() - started)
    return graph


@cache
def _capture_stream() -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace of 32 MiB for every stream that it has seen."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class Graphs:
    """Captured steps. A bucket whose capture failed is not in `sizes`; larger batches than any bucket run eagerly."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.sizes: list[int] = []
        self.note = "none"
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def capture(self, buckets: Sequence[int], progress: Callable[[str], None]) -> None:
        """From the largest down, so that the smaller ones fit into the memory that the pool has by then."""
        before, started = torch.cuda.mem_get_info()[0], time.perf_counter()
        pool = torch.cuda.graph_pool_handle()
        failed = ""
        for bucket in sorted(buckets, reverse=True):
            try:
                self._graphs[bucket] = captured(lambda bucket=bucket: self.decoder.run(bucket), pool)  # type: ignore[misc]
                self.sizes.insert(0, bucket)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                failed += f"; {bucket} did not fit ({str(error).splitlines()[0][:160]})"
        used = before - torch.cuda.mem_get_info()[0]
        sizes = ",".join(map(str, self.sizes)) or "none"
        self.note = f"{sizes} ({used / 2**20:.0f} MiB, {time.perf_counter() - started:.1f} s){failed}"
        progress(f"CUDA graphs for batches of {self.note}")

    def fits(self, count: int) -> int | None:
        """The smallest captured bucket for so many rows."""
        return next((size for size in self.sizes if size >= count), None)

    def replay(self, bucket: int) -> None:
        self._graphs[bucket].replay()

    def clear(self) -> None:
        """Frees the graphs and their memory."""
        self._graphs.clear()
        self.sizes.clear()
