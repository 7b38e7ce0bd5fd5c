"""Kernels that every model needs are compiled while its weights are loaded, several at a time.

A kernel is compiled at its first launch, so each is launched once, on zeros, with the numbers that it will have: what
Triton looks at (types, constants, which pointers and lengths are multiples of 16) must be the same.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from redline.runtime.batch import TILE, Batch
from redline.runtime.kernels import KV
from redline.runtime.kernels.draw import Draw
from redline.runtime.kernels.plan import Plan
from redline.runtime.kernels.triton import MEASURED, Attending, TritonKernels, cuts_of
from redline.runtime.state import Tables

if TYPE_CHECKING:
    from redline.runtime.architecture import ModelConfig

WORKERS = 16
CONTEXT = 1024
"""Tokens before each row where ways of attending are compared."""
_loading = threading.Lock()


@cache
def keep_launchers_apart() -> None:
    """Triton up to 3.6 has an extension module for each kind of launch, all of one name. Python gives a module of that
    name that is loaded already for one that is loaded again, with the other's functions put into it; so two threads can
    each get the other's launcher. Here one loads at a time, and what it got is kept."""
    from triton.runtime import build

    load: Callable[[str, str], object] | None = getattr(build, "_load_module_from_path", None)
    if load is None:
        return

    def apart(name: str, path: str) -> SimpleNamespace:
        with _loading:
            return SimpleNamespace(**vars(load(name, path)))

    build._load_module_from_path = apart


def run_all(device: torch.device, calls: Iterable[Callable[[], object]]) -> Callable[[], None]:
    """Begins all calls, side by side: most of a compilation holds no lock. The result waits for them. A call that fails
    does so silently: it will again where it is meant."""
    keep_launchers_apart()

    def once(call: Callable[[], object]) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with torch.inference_mode(), suppress(Exception):
            call()

    pool = ThreadPoolExecutor(max(1, min(WORKERS, (os.cpu_count() or 1) - 1)))
    for call in calls:
        pool.submit(once, call)
    return partial(pool.shutdown, wait=True)


@dataclass(frozen=True)
class Start:
    """What launches depend on, besides the model. `fused`: decode steps rotate, write and attend in one launch."""

    page_size: int
    sequences: int
    longest: int
    dtype: torch.dtype
    kv_dtype: torch.dtype
    device: torch.device
    fp8: bool = False
    fused: bool = False

    def zeros(self, *shape: int) -> torch.Tensor:
        return zeros(self.device, self.dtype, *shape)

    def kv(self, model: ModelConfig) -> KV:
        """Of two pages."""
        shape = (2, self.page_size, model.num_kv_heads, model.head_dim)
        return zeros(self.device, self.kv_dtype, *shape), zeros(self.device, self.kv_dtype, *shape)


Launch = Callable[[], object]


def first_launches(kernels: TritonKernels, draw: Draw, model: ModelConfig, start: Start) -> Iterator[Launch]:
    """Of prompts, of the choice of tokens, and of decode attention, those that take the longest first. Products of
    decode steps are compiled where they are compared."""
    logits = start.zeros(2, model.vocab_size)
    at = torch.zeros(2, dtype=torch.int32, device=start.device)
    tables = Tables(start.sequences, 1, start.page_size, start.device)
    yield partial(draw.draw, logits, tables, at, at, at.clone())
    yield from _attention(kernels, model, start)
    if start.fused:
        yield from _decodes(kernels, model, start)
    yield partial(draw.prepare, tables, at[:1], one_sequence(1, start.device))
    yield from _pointwise(kernels, model, start)


def _windows(model: ModelConfig) -> set[int | None]:
    return {4 if one is not None else None for one in model.window}


def _attention(kernels: TritonKernels, model: ModelConfig, start: Start) -> Iterator[Launch]:
    """Of prompts, and of decodes beside them."""
    h, d, device, kv = model.num_heads, model.head_dim, start.device, start.kv(model)
    plans = [(-(-m // (h // model.num_kv_heads)), m) for m in (128, TILE)]
    for (tokens, m), splits in itertools.product([*plans, (1, 0)], (2, 1)):
        rows, out = start.zeros(tokens, h, d), start.zeros(tokens, h * d)
        tiles = torch.zeros(1, 2, dtype=torch.int32, device=device) if m else None
        plan, how = Plan(0, tiles, m) if m else Plan(1, None, 16), Attending(splits)
        for window in _windows(model):
            yield partial(kernels.attend, rows, kv, one_sequence(tokens, device), out, 1.0, window, plan, how)


def _decodes(kernels: TritonKernels, model: ModelConfig, start: Start) -> Iterator[Launch]:
    """Of decode attention, all ways that will be compared."""
    k, d, device, kv = model.num_kv_heads, model.head_dim, start.device, start.kv(model)
    norms = (start.zeros(d), start.zeros(d)) if model.qk_norm else None
    heads, cos_sin = start.zeros(1, (model.num_heads + 2 * k) * d), zeros(device, torch.float32, 2, d)
    context = min(CONTEXT, start.longest)
    sizes = [rows for rows in MEASURED if rows <= start.sequences]
    cuts = [cut.code for rows in sizes for cut in cuts_of(rows * k, rows, kernels.processors, context)]
    for how, window in itertools.product(dict.fromkeys(cuts), _windows(model)):
        batch = one_sequence(1, device)
        yield partial(kernels.decode_attention, heads, norms, 1e-5, cos_sin, batch, kv, 1.0, window, how)


def _pointwise(kernels: TritonKernels, model: ModelConfig, start: Start) -> Iterator[Launch]:
    h, k, d = model.num_heads, model.num_kv_heads, model.head_dim
    hidden, gain = start.zeros(2, model.hidden_size), start.zeros(model.hidden_size)
    both = start.zeros(2, 2 * model.intermediate_size)
    q, key, v = start.zeros(2, h + 2 * k, d).split_with_sizes((h, k, k), 1)
    batch, cos_sin = one_sequence(2, start.device), zeros(start.device, torch.float32, 2, d)
    yield partial(kernels.rope_append, q, key, v, cos_sin, batch, start.kv(model))
    yield partial(kernels.rms_norm, hidden, gain, 1e-5)
    yield partial(kernels.add_rms_norm, hidden, hidden.clone(), gain, 1e-5)
    if model.qk_norm:
        yield partial(kernels.rms_norm, q, start.zeros(d), 1e-5)
    yield partial(kernels.silu_mul, both)
    if start.fp8:
        for columns in {model.hidden_size, model.intermediate_size, h * d}:
            yield partial(kernels.quantize_rows, start.zeros(2, columns))
        for added in (hidden, None):
            yield partial(kernels.norm_quantize, added, hidden.clone(), gain, 1e-5)
        yield partial(kernels.silu_quantize, both)


def zeros(device: torch.device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def one_sequence(tokens: int, device: torch.device) -> Batch:
    """A prompt of so many tokens, all in page 0."""
    long = torch.zeros(tokens, dtype=torch.int64, device=device)
    return Batch(
        ids=long,
        positions=long,
        slots=long,
        starts=torch.tensor([0, tokens], dtype=torch.int32, device=device),
        seq_lens=torch.tensor([tokens], dtype=torch.int32, device=device),
        page_tables=torch.zeros(1, 64, dtype=torch.int32, device=device),
        logits_at=long[:1],
        max_query=tokens,
        max_seq=tokens,
        host_starts=[0, tokens],
        host_seq_lens=[tokens],
    )
