"""Which way of computing the same thing is the fastest here: measured at start, per operation and batch size.

A candidate is captured into a graph that calls it on the weights of several layers in turn, so that the cache holds no
more than in a real step, and replayed; the median counts. After `budget_s` nothing more is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch

from redline.runtime.batch import Batch
from redline.runtime.graph import captured
from redline.runtime.kernels import KV
from redline.runtime.kernels.flashinfer import FlashInferKernels
from redline.runtime.kernels.plan import Plan
from redline.runtime.kernels.triton import MEASURED, Attending, TritonKernels, cuts_of, few
from redline.runtime.kernels.triton_linear import Around, Way, candidates
from redline.runtime.kernels.triton_step import DecodeStep, Residual
from redline.runtime.kernels.warm import CONTEXT, run_all
from redline.runtime.linear import Fp8, Plain, Weight

if TYPE_CHECKING:
    from redline.runtime.model import Model

Call = Callable[[int], object]
AROUND = {"qkv": "plain", "o": "added", "gate_up": "gated", "down": "added", "head": "plain"}
"""What stands around the products of a decode step; norms, which a way's name has, left out."""
Timer = Callable[[Call, int], float]
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
                asked += [
                    Operation(self.step, what, tokens).question()
                    for tokens in representatives(buckets)
                    for what in ("qkv", "o", "gate_up", "down", "head")
                ]
            for rows in (size for size in MEASURED if size in buckets):
                asked += [self._attention(kv, rows, context, page_size, pages)]
            # ways that differ in numbers only, not in machine code, are compiled once
            distinct = {code: call for one in asked for code, call in one.elsewhere.items()}
            distinct |= {one.code(name): call for one in asked for name, call in one.ways.items()}
            self.compile([partial(call, 0) for call in distinct.values()])
            self._until = time.perf_counter() + self._budget
            for one in asked:
                one.take(self.best(one.what, one.ways, one.calls))
            self._spread(buckets)

    def compile(self, calls: Sequence[Callable[[], object]]) -> None:
        """Side by side. Without a GPU nothing is compiled."""
        device = self.model.embedding.device
        if device.type == "cuda":
            run_all(device, calls)()
            torch.cuda.synchronize()

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
        cuts = cuts_of(rows * c.num_kv_heads, rows, kernels.processors, context)
        own = {f"triton/{how.splits}x{how.block_n}w{how.warps}": how for how in cuts}
        layer = self.model.layers[0]
        norms = None if layer.q_norm is None or layer.k_norm is None else (layer.q_norm, layer.k_norm)
        fused = self.step is not None and self.step.fuses_rope
        heads = torch.randn(rows, (c.num_heads + 2 * c.num_kv_heads) * c.head_dim, device=device).to(self.model.dtype)

        def attend(i: int, how: Attending) -> None:
            if fused:
                one = kv[i % LAYERS % len(kv)]
                kernels.decode_attention(heads, norms, 0.0, self.model.cos_sin, batch, one, scale, window, how)
                return
            kernels.attend(q, kv[i % LAYERS % len(kv)], batch, out, scale, window, plan, how)

        ways: dict[str, Call] = {name: partial(attend, how=how) for name, how in own.items()}
        if isinstance(kernels, FlashInferKernels):
            ways["xqa"] = lambda i: kernels.xqa(q, kv[i % LAYERS % len(kv)], batch, scale, window)

        def take(name: str) -> None:
            kernels.attending[rows] = own.get(name) or next(iter(own.values()))
            if name == "xqa" and isinstance(kernels, FlashInferKernels):
                kernels.xqa_rows.add(rows)

        def code(name: str) -> object:
            return own[name].code if name in own else name

        return Question(f"attention ({rows} rows, context {context})", ways, LAYERS, take, code)

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
    `code`: what a way's machine code depends on. `elsewhere`: by such a code, what the best way will do in other steps
    than those of decodes; to be compiled, not compared."""

    what: str
    ways: dict[str, Call]
    calls: int
    take: Callable[[str], None]
    code: Callable[[str], object]
    elsewhere: Mapping[object, Call] = MappingProxyType({})


def representatives(buckets: Sequence[int]) -> list[int]:
    """A batch size for each class of `few` rows that occurs; 8 stands for 2 to 16."""
    by_class: dict[int, list[int]] = {}
    for size in buckets:
        by_class.setdefault(few(size), []).append(size)
    by_class.pop(0, None)
    return [8 if 8 in sizes else max(sizes) for sizes in by_class.values()]


class Operation:
    """One product of a decode step with what stands around it, on `tokens` rows. `ways`: None is the library's."""

    def __init__(self, step: DecodeStep, what: str, tokens: int) -> None:
        model = step.model
        self.step, self.what, self.tokens = step, what, tokens
        self.weights = [model.head] if what == "head" else _enough(model, what)
        self.hidden = self._random(model.config.hidden_size)
        self.ways: dict[str, Way | None] = {"library": None}
        first = self.weights[0]
        if not isinstance(first, Plain | Fp8) or not all(type(weight) is type(first) for weight in self.weights):
            return
        self.key = (few(tokens), *first.weight.shape, first.weight.dtype)
        self.x = self._random(first.weight.shape[1])
        self.out = self._random(first.weight.shape[0])
        for label, way in candidates(tokens, first, step.kernels.processors).items():
            # a row is normed where it is read; several would be so in every program, which costs more than a launch
            normed = what not in ("o", "down") and tokens == 1 and not way.rounds
            self.ways[label + "+norm" * normed] = way._replace(norms=normed)

    def _random(self, columns: int) -> torch.Tensor:
        model = self.step.model
        return torch.randn(self.tokens, columns, device=model.embedding.device).to(model.dtype)

    def question(self) -> Question:
        calls: dict[str, Call] = {name: partial(self._run, way=way) for name, way in self.ways.items()}
        own = {name: way for name, way in self.ways.items() if way is not None and self.tokens > 1}
        elsewhere: dict[object, Call] = {
            self._code(name, "plain"): partial(self._alone, way=way) for name, way in own.items()
        }
        what, count = f"{self.what} ({self.tokens} tokens)", max(LAYERS, len(self.weights))
        return Question(what, calls, count, self._take, self._code, elsewhere)

    def _run(self, i: int, way: Way | None) -> None:
        step, stream, weight = self.step, Residual(self.hidden), self.weights[i % len(self.weights)]
        gain = step.model.norm
        if self.what == "head":
            step.head_product(way, stream, gain, weight, self.out)
        elif self.what not in ("o", "down"):
            gated = way is not None and self.what == "gate_up"
            y = step.norm_product(way, stream, gain, weight, Around(gated=gated, pdl=step.kernels.pdl))
            if way is None and self.what == "gate_up" and not isinstance(weight, Fp8):
                step.kernels.silu_mul(y)
        elif way is None:
            step.library(self.x, weight)
        else:
            step.add_product(way, self.x, weight, stream)

    def _take(self, name: str) -> None:
        way = self.ways[name]
        if way is not None:
            self.step.ways[self.what, few(self.tokens)] = way
            if self.tokens > 1:  # a single row is multiplied outside of decode steps only where a long prompt ends
                self.step.kernels.products[self.key] = way

    def _alone(self, i: int, way: Way) -> None:
        weight = self.weights[i % len(self.weights)]
        assert isinstance(weight, Plain | Fp8)
        self.step.kernels.alone(way, self.x, weight)

    def _code(self, name: str, around: str = "") -> object:
        tile, several, _ = name.partition("/")
        return around or AROUND[self.what], few(self.tokens), tile, bool(several)


def _enough(model: Model, name: str) -> list[Weight]:
    each = getattr(model.layers[0], name).nbytes
    return [getattr(layer, name) for layer in model.layers[: max(LAYERS, -(-SPAN // each))]]
