"""Which way of computing the same thing is the fastest here: measured at start, per operation and batch size.

A candidate is captured into a graph that calls it on the weights of several layers in turn, so that the cache holds no
more than in a real step, and replayed; the median counts. After `budget_s` nothing more is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from redline.runtime.batch import Batch
from redline.runtime.graph import captured
from redline.runtime.kernels import KV
from redline.runtime.kernels.flashinfer import FlashInferKernels
from redline.runtime.kernels.plan import MOST_SPLITS, splits_for
from redline.runtime.kernels.triton import TritonKernels
from redline.runtime.kernels.triton_linear import candidates
from redline.runtime.linear import Fp8, Plain, Weight

if TYPE_CHECKING:
    from redline.runtime.model import Model

Call = Callable[[int], object]
Timer = Callable[[Call, int], float]
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXT = 1024
LAYERS = 4
SPAN = 256 << 20
"""Weights of so many layers, and so many bytes, are gone through in turn: more than a GPU's cache."""


def graph_time(call: Call, count: int) -> float:
    """Milliseconds per call, launches excluded. `call(i)` for i below `count`."""

    def all_calls() -> None:
        for i in range(count):
            call(i)

    graph = captured(all_calls)
    times = []
    for _ in range(5):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        before.record()
        graph.replay()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / count)
    return float(statistics.median(times[1:]))


class Chooser:
    """Sets `kernels.products`, `splits` and `xqa_rows`; `notes` tells what was chosen and by how much."""

    def __init__(
        self, kernels: TritonKernels, model: Model, *, budget_s: float = 4.0, timer: Timer = graph_time
    ) -> None:
        self.kernels, self.model, self.timer = kernels, model, timer
        self.notes: dict[str, str] = {}
        self._until = time.perf_counter() + budget_s

    def choose(self, kv: Sequence[KV], buckets: Sequence[int], page_size: int, pages: int) -> None:
        with torch.inference_mode():
            for tokens in (size for size in ROWS if size in buckets and size <= 16):
                self._products(tokens)
            for rows in (size for size in ROWS if size in buckets):
                self._attention(kv, rows, page_size, pages)
            self._spread(buckets)

    def best(self, what: str, ways: dict[str, Call], count: int) -> str:
        """The fastest way's name; the first one's when time has run out. A way that fails is named and passed over."""
        usual = next(iter(ways))
        if time.perf_counter() > self._until:
            self.notes[what] = f"{usual} (not measured: no time left)"
            return usual
        times: dict[str, float] = {}
        for name, call in ways.items():
            try:
                times[name] = self.timer(call, count)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
            except Exception as error:
                self.notes[f"{what} {name}"] = f"failed: {type(error).__name__}: {str(error)[:120]}"
        if not times:
            return usual
        best = min(times, key=lambda name: times[name])
        self.notes[what] = " < ".join(f"{n} {t * 1000:.1f} µs" for n, t in sorted(times.items(), key=lambda x: x[1]))
        return best

    def _products(self, tokens: int) -> None:
        groups = {name: _enough(self.model, name) for name in ("qkv", "o", "gate_up", "down")}
        for name, weights in {**groups, "head": [self.model.head]}.items():
            first = weights[0]
            if not isinstance(first, Plain | Fp8) or not all(type(weight) is type(first) for weight in weights):
                continue
            key = (tokens, *first.weight.shape, first.weight.dtype)
            own = candidates(tokens, first)
            if key in self.kernels.products or not own or (first.bias is not None and isinstance(first, Fp8)):
                continue
            x = torch.randn(tokens, first.weight.shape[1], device=first.weight.device).to(self.model.dtype)
            ways: dict[str, Call] = {"library": lambda i, w=weights, x=x: self.kernels.linear(x, w[i % len(w)])}  # type: ignore[misc]
            for label, way in own.items():
                ways[label] = lambda i, w=weights, x=x, way=way: way(x, w[i % len(w)])  # type: ignore[misc]
            chosen = self.best(f"{name} ({tokens} tokens)", ways, max(LAYERS, len(weights)))
            if chosen != "library":
                self.kernels.products[key] = own[chosen]

    def _attention(self, kv: Sequence[KV], rows: int, page_size: int, pages: int) -> None:
        c, kernels, device = self.model.config, self.kernels, kv[0][0].device
        each = -(-CONTEXT // page_size)
        tables = torch.randint(1, max(2, pages), (rows, -(-each // 64) * 64), dtype=torch.int32, device=device)
        lengths = torch.full((rows,), CONTEXT, dtype=torch.int32, device=device)
        none = torch.empty(0, dtype=torch.int64, device=device)
        starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        batch = Batch(none, none, none, starts, lengths, tables, none, 1, CONTEXT)
        q = torch.randn(rows, c.num_heads, c.head_dim, device=device).to(self.model.dtype)
        usual = splits_for(rows * c.num_kv_heads, kernels.processors, CONTEXT)
        window = self.model.layers[0].window

        def split(i: int, splits: int) -> object:
            kernels.splits[rows] = splits
            return TritonKernels.attention(kernels, q, kv[i % LAYERS % len(kv)], batch, self.model.scale, window)

        ways: dict[str, Call] = {}
        for splits in dict.fromkeys((usual, max(1, usual // 2), min(MOST_SPLITS, usual * 2))):
            ways[f"triton/{splits}"] = lambda i, splits=splits: split(i, splits)  # type: ignore[misc]
        if isinstance(kernels, FlashInferKernels):
            ways["xqa"] = lambda i: kernels.xqa(q, kv[i % LAYERS % len(kv)], batch, self.model.scale, window)
        chosen = self.best(f"attention ({rows} rows, context {CONTEXT})", ways, LAYERS)
        kernels.splits[rows] = usual
        if chosen == "xqa" and isinstance(kernels, FlashInferKernels):
            kernels.xqa_rows.add(rows)
        elif chosen != "xqa":
            kernels.splits[rows] = int(chosen.split("/")[1])

    def _spread(self, buckets: Sequence[int]) -> None:
        """Sizes that were not measured do as the next smaller one that was."""
        splits, kernels = dict(self.kernels.splits), self.kernels
        for bucket in buckets:
            measured = max((rows for rows in splits if rows <= bucket), default=None)
            if measured is None:
                continue
            kernels.splits[bucket] = splits[measured]
            if isinstance(kernels, FlashInferKernels) and measured in kernels.xqa_rows:
                kernels.xqa_rows.add(bucket)


def _enough(model: Model, name: str) -> list[Weight]:
    each = getattr(model.layers[0], name).nbytes
    return [getattr(layer, name) for layer in model.layers[: max(LAYERS, -(-SPAN // each))]]
