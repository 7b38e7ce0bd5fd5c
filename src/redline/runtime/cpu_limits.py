"""What a CPU box can hold and how it should compute: dtype, threads, pages. Facts are read once, at start."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch

from redline.errors import EnvironmentFault, UsageError
from redline.node.cgroup import cpu_limit
from redline.node.cpu import affinity
from redline.node.memory import memory_facts
from redline.runtime.architecture import ModelConfig
from redline.runtime.config import EngineConfig
from redline.runtime.linear import can_pack
from redline.runtime.step import Limits

PAGE_SIZE = 16
SEQUENCES = 64
BATCHED_TOKENS = 512
SMALL_MODEL_BYTES = 64 << 20
"""Weights of this size are read in the time that two threads need to meet at each of a layer's operations."""


class Dtypes(NamedTuple):
    weights: torch.dtype
    activations: torch.dtype
    why: str


def choose_dtypes(asked: str, stored: str) -> Dtypes:
    """`auto` keeps bfloat16 where the CPU multiplies it in hardware, and computes the rest in float32 everywhere.

    Norms, attention and K and V in float32 are both quicker on a CPU and nearer to the exact result than in bfloat16.
    """
    if asked == "float16":
        raise UsageError("--dtype float16 on a CPU", why="no common CPU multiplies it", fix="--dtype bfloat16")
    if asked != "auto":
        return Dtypes(getattr(torch, asked), torch.float32, "asked for")
    if stored == "bfloat16" and _has_bfloat16():
        return Dtypes(torch.bfloat16, torch.float32, "the checkpoint's, and this CPU has instructions for it")
    if stored == "bfloat16":
        return Dtypes(torch.float32, torch.float32, "this CPU has no instructions for bfloat16")
    return Dtypes(torch.float32, torch.float32, "exact for every checkpoint")


def _has_bfloat16() -> bool:
    fast = platform.machine() not in ("x86_64", "AMD64") or (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    return fast and can_pack(torch.bfloat16)


def choose_threads(asked: int, weight_bytes: int) -> tuple[int, str]:
    """(threads, why). Threads that wait for each other on a busy box are many times slower than one."""
    if asked:
        return asked, "asked for"
    cores = len(affinity(Path("/"), list(range(os.cpu_count() or 1))))
    usable = max(1, int(min(cores, cpu_limit() or cores)))
    if weight_bytes <= SMALL_MODEL_BYTES:
        return 1, "the model is small"
    load = os.getloadavg()[0]
    if load > cores:
        return 1, f"the load average {load:.1f} exceeds {cores} cores"
    return usable, "cores that may be used"


def choose_limits(config: EngineConfig, model: ModelConfig, itemsize: int) -> Limits:
    """Pages from the share of the memory that is free now, with the weights loaded. `itemsize`: bytes of one number.

    Raises `EnvironmentFault` when none fit.
    """
    page_size = config.page_size or PAGE_SIZE
    sequences = config.max_num_seqs or SEQUENCES
    longest = min(config.max_model_len or model.max_position, model.max_position)
    if config.max_model_len > model.max_position:
        raise UsageError(
            f"--max-model-len {config.max_model_len}: the model has {model.max_position} positions",
            fix="leave it out to take the model's",
        )
    per_page = model.kv_bytes(itemsize) * page_size
    budget = int(_free_bytes() * 0.25 * config.memory_share)
    wanted = sequences * -(-longest // page_size)
    pages = -(-config.kv_cache_tokens // page_size) if config.kv_cache_tokens else min(budget // per_page, wanted)
    if pages < 1:
        raise EnvironmentFault(
            f"no memory for KV: {budget >> 20} MiB are left for it",
            why=f"a page of {page_size} tokens takes {per_page >> 10} KiB; a quarter of what is free is used",
            fix="--kv-cache-tokens sets it by hand",
        )
    longest = min(longest, pages * page_size)
    batched = max(config.max_num_batched_tokens or BATCHED_TOKENS, sequences)
    return Limits(pages + 1, page_size, sequences, batched, longest, model.vocab_size)  # page 0 is never given out


def _free_bytes() -> int:
    facts = memory_facts()
    free = facts["usable_bytes"] if isinstance(facts, dict) else 0
    return int(free) if isinstance(free, int) else 0
