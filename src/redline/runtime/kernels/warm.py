"""Kernels that every model needs are compiled while its weights are loaded, several at a time.

A kernel is compiled at its first launch, so each is launched once, on zeros, with the numbers that it will have: what
Triton looks at (types, constants, which pointers and lengths are multiples of 16) must be the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from redline.runtime.batch import TILE, Batch
from redline.runtime.kernels.draw import Draw
from redline.runtime.kernels.plan import Plan
from redline.runtime.kernels.triton import Attending, TritonKernels
from redline.runtime.state import Tables

if TYPE_CHECKING:
    from redline.runtime.architecture import ModelConfig

WORKERS = 16
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


def first_launches(
    kernels: TritonKernels,
    draw: Draw,
    model: ModelConfig,
    *,
    page_size: int,
    sequences: int,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    device: torch.device,
    fp8: bool,
) -> Iterator[Callable[[], object]]:
    """Of prompts and of the choice of tokens; decode steps are compiled where their ways are compared."""
    h, k, d = model.num_heads, model.num_kv_heads, model.head_dim
    hidden, gain = zeros(device, dtype, 2, model.hidden_size), zeros(device, dtype, model.hidden_size)
    both = zeros(device, dtype, 2, 2 * model.intermediate_size)
    q, key, v = zeros(device, dtype, 2, h + 2 * k, d).split_with_sizes((h, k, k), 1)
    kv = zeros(device, kv_dtype, 2, page_size, k, d), zeros(device, kv_dtype, 2, page_size, k, d)
    batch = one_sequence(2, device)
    for m, splits in ((m, splits) for m in (128, TILE) for splits in (2, 1)):
        tokens = -(-m // (h // k))
        tiles = torch.zeros(1, 2, dtype=torch.int32, device=device)
        rows, out = zeros(device, dtype, tokens, h, d), zeros(device, dtype, tokens, h * d)
        plan, how = Plan(0, tiles, m), Attending(splits)
        for window in {4 if one is not None else None for one in model.window}:
            yield partial(kernels.attend, rows, kv, one_sequence(tokens, device), out, 1.0, window, plan, how)
    for splits in (2, 1):  # decodes beside a prompt
        for window in {4 if one is not None else None for one in model.window}:
            one, out = zeros(device, dtype, 1, h, d), zeros(device, dtype, 1, h * d)
            plan, how = Plan(1, None, 16), Attending(splits)
            yield partial(kernels.attend, one, kv, one_sequence(1, device), out, 1.0, window, plan, how)
    logits = zeros(device, dtype, 2, model.vocab_size)
    at = torch.zeros(2, dtype=torch.int32, device=device)
    tables = Tables(sequences, 1, page_size, device)
    yield partial(draw.draw, logits, tables, at, at, at.clone())
    yield partial(draw.prepare, tables, at[:1], batch)
    yield partial(kernels.rope_append, q, key, v, zeros(device, torch.float32, 2, d), batch, kv)
    yield partial(kernels.rms_norm, hidden, gain, 1e-5)
    yield partial(kernels.add_rms_norm, hidden, hidden.clone(), gain, 1e-5)
    if model.qk_norm:
        yield partial(kernels.rms_norm, q, zeros(device, dtype, d), 1e-5)
    yield partial(kernels.silu_mul, both)
    if fp8:
        for columns in {model.hidden_size, model.intermediate_size, h * d}:
            yield partial(kernels.quantize_rows, zeros(device, dtype, 2, columns))
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
