"""Which way of computing the same thing is the fastest here: measured at start, per operation and batch size.

A candidate is captured into a graph that calls it on the weights of several layers in turn, so that the cache holds no
more than in a real step, and replayed; the median counts. After `budget_s` nothing more is measured.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from redline.runtime.batch import Batch
from redline.runtime.graph import captured
from redline.runtime.kernels import KV
from redline.runtime.kernels.flashinfer import FlashInferKernels
from redline.runtime.kernels.plan import MOST_SPLITS, Plan, splits_for
from redline.runtime.kernels.triton import Attending, TritonKernels, few
from redline.runtime.kernels.triton_linear import Around, candidates
from redline.runtime.kernels.triton_step import DecodeStep, Residual, Way
from redline.runtime.linear import Fp8, Plain, Weight

if TYPE_CHECKING:
    from redline.runtime.model import Model

Call = Callable[[int], object]
Timer = Callable[[Call, int], float]
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXT = 1024
LAYERS = 4
MOST_NORMED = 16
"""With more rows than that, norming them in every program costs more than a launch."""
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
    """Sets what `kernels` and `step` leave open; `notes` tells what was chosen and by how much."""

    def __init__(
        self,
        kernels: TritonKernels,
        model: Model,
        step: DecodeStep | None = None,
        *,
        budget_s: float = 4.0,
        timer: Timer = graph_time,
    ) -> None:
        self.kernels, self.model, self.timer = kernels, model, timer
        self.step = step
        self.notes: dict[str, str] = {}
        self._budget, self._until = budget_s, 0.0

    def choose(self, kv: Sequence[KV], buckets: Sequence[int], page_size: int, pages: int, longest: int = 0) -> None:
        context = min(CONTEXT, longest or CONTEXT)
        asked: list[Question] = []
        with torch.inference_mode():
            if self.step is not None:
                asked += [one for tokens in representatives(buckets) for one in operations(self.step, tokens)]
            for rows in (size for size in ROWS if size in buckets):
                asked += [self._attention(kv, rows, context, page_size, pages)]
            # ways that differ in numbers only, not in machine code, are compiled once
            compile_all({one.code(name): call for one in asked for name, call in one.ways.items()}.values())
            self._until = time.perf_counter() + self._budget
            for one in asked:
                one.take(self.best(one.what, one.ways, one.calls))
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

    def _attention(self, kv: Sequence[KV], rows: int, context: int, page_size: int, pages: int) -> Question:
        c, kernels, device = self.model.config, self.kernels, kv[0][0].device
        each = -(-context // page_size)
        tables = torch.randint(1, max(2, pages), (rows, -(-each // 64) * 64), dtype=torch.int32, device=device)
        lengths = torch.full((rows,), context, dtype=torch.int32, device=device)
        none = torch.empty(0, dtype=torch.int64, device=device)
        starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        batch = Batch(none, none, none, starts, lengths, tables, none, 1, context)
        q = torch.randn(rows, c.num_heads, c.head_dim, device=device).to(self.model.dtype)
        out = torch.empty(rows, c.num_heads * c.head_dim, dtype=q.dtype, device=device)
        window, scale, plan = self.model.layers[0].window, self.model.scale, Plan(rows, None, 16)
        own = {f"triton/{how.splits}x{how.block_n}w{how.warps}": how for how in self._cuts(rows, context)}

        def attend(i: int, how: Attending) -> None:
            kernels.attend(q, kv[i % LAYERS % len(kv)], batch, out, scale, window, plan, how)

        ways: dict[str, Call] = {name: partial(attend, how=how) for name, how in own.items()}
        if isinstance(kernels, FlashInferKernels):
            ways["xqa"] = lambda i: kernels.xqa(q, kv[i % LAYERS % len(kv)], batch, scale, window)

        def take(name: str) -> None:
            kernels.attending[rows] = own.get(name) or next(iter(own.values()))
            if name == "xqa" and isinstance(kernels, FlashInferKernels):
                kernels.xqa_rows.add(rows)

        def code(name: str) -> object:
            return own[name]._replace(splits=min(2, own[name].splits)) if name in own else name

        return Question(f"attention ({rows} rows, context {context})", ways, LAYERS, take, code)

    def _cuts(self, rows: int, context: int) -> list[Attending]:
        """Splits around the usual number; with many rows, where a tile's shape matters most, other tiles too."""
        usual = splits_for(rows * self.model.config.num_kv_heads, self.kernels.processors, context)
        cuts = [Attending(n) for n in dict.fromkeys((usual, max(1, usual // 2), min(MOST_SPLITS, usual * 2)))]
        if rows >= 16:
            cuts += [Attending(usual, *tile) for tile in ((128, 4, 2), (32, 2, 4))]
        return cuts

    def _spread(self, buckets: Sequence[int]) -> None:
        """Sizes that were not measured do as the next smaller one that was."""
        kernels, measured = self.kernels, dict(self.kernels.attending)
        for bucket in buckets:
            nearest = max((rows for rows in measured if rows <= bucket), default=None)
            if nearest is None:
                continue
            kernels.attending[bucket] = measured[nearest]
            if isinstance(kernels, FlashInferKernels) and nearest in kernels.xqa_rows:
                kernels.xqa_rows.add(bucket)


class Question(NamedTuple):
    """Ways of doing one thing, the usual one first; `take` gets the name of the best. `calls`: so many in a row.
    `code`: what a way's machine code depends on."""

    what: str
    ways: dict[str, Call]
    calls: int
    take: Callable[[str], None]
    code: Callable[[str], object]


def representatives(buckets: Sequence[int]) -> list[int]:
    """A batch size for each class of `few` rows that occurs; 8 stands for 2 to 16."""
    by_class: dict[int, list[int]] = {}
    for size in buckets:
        by_class.setdefault(few(size), []).append(size)
    by_class.pop(0, None)
    return [8 if 8 in sizes else max(sizes) for sizes in by_class.values()]


def operations(step: DecodeStep, tokens: int) -> Iterator[Question]:
    """The products of a step with what stands around each, on so many rows."""
    model, device = step.model, step.model.embedding.device
    hidden = torch.randn(tokens, model.config.hidden_size, device=device).to(model.dtype)
    gain = model.norm
    logits = torch.empty(tokens, model.config.vocab_size, dtype=model.dtype, device=device)
    for what in ("qkv", "o", "gate_up", "down", "head"):
        weights = [model.head] if what == "head" else _enough(model, what)
        first = weights[0]
        if not isinstance(first, Plain | Fp8) or not all(type(weight) is type(first) for weight in weights):
            continue
        own = candidates(tokens, first, step.kernels.processors)
        x = torch.randn(tokens, first.weight.shape[1], device=device).to(model.dtype)

        def run(i: int, way: Way | None, what: str, weights: list[Weight], x: torch.Tensor) -> None:
            weight, stream = weights[i % len(weights)], Residual(hidden)
            if what == "head":
                step.head_product(way, stream, gain, weight, logits)
            elif what not in ("o", "down"):
                around = Around(gated=way is not None and what == "gate_up", pdl=step.kernels.pdl)
                y = step.norm_product(way, stream, gain, weight, around)
                if way is None and what == "gate_up":
                    step.kernels.silu_mul(y)
            elif way is None:
                step.library(x, weight)
            else:
                step.add_product(way, x, weight, stream)

        named: dict[str, Way | None] = {"library": None}
        for label, product in own.items():
            normed = what not in ("o", "down") and tokens <= MOST_NORMED
            if normed:
                named[label + "+norm"] = Way(product, norms=True)
            if not normed or (tokens > 1 and "64x" in label):
                named[label] = Way(product)
        ways: dict[str, Call] = {
            name: partial(run, way=way, what=what, weights=weights, x=x) for name, way in named.items()
        }

        def take(name: str, what: str = what, named: dict[str, Way | None] = named, first: Plain | Fp8 = first) -> None:
            way = named[name]
            if way is not None:
                step.ways[what, few(tokens)] = way
                step.kernels.products[few(tokens), *first.weight.shape, first.weight.dtype] = way.product

        def code(name: str, kind: str = {"down": "o", "head": "qkv"}.get(what, what)) -> object:
            return kind, few(tokens), name

        yield Question(f"{what} ({tokens} tokens)", ways, max(LAYERS, len(weights)), take, code)


def compile_all(calls: Iterable[Call]) -> None:
    """Each once, side by side: most of a compilation holds no lock. What fails is told where it is measured."""
    if not torch.cuda.is_available():
        return
    device = torch.cuda.current_device()

    def once(call: Call) -> None:
        torch.cuda.set_device(device)
        with torch.inference_mode(), suppress(Exception):
            call(0)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(once, calls))
    torch.cuda.synchronize()


def _enough(model: Model, name: str) -> list[Weight]:
    each = getattr(model.layers[0], name).nbytes
    return [getattr(layer, name) for layer in model.layers[: max(LAYERS, -(-SPAN // each))]]
