"""What an engine is started with. Every field is a flag of the server under the same name, with dashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class SpeculationConfig:
    """`method`: `ngram` looks the last tokens up in the request's own text, `draft` asks a smaller model."""

    method: Literal["ngram", "draft"]
    tokens: int = 4
    """Guessed tokens per step at most."""
    draft_model: Path | None = None
    ngram_min: int = 2
    ngram_max: int = 4
    adaptive: bool = True
    """Measures what a step of each width costs and guesses only where that pays."""


@dataclass(frozen=True)
class EngineConfig:
    """0 and None mean: chosen at start from the model and the box, and printed.

    `max_num_batched_tokens` is the budget of one step, prefill and decode together. `itl_target_ms` shortens
    prefill chunks so that a step that also decodes stays within it.
    """

    model: Path
    tokenizer: Path | None = None
    load_format: Literal["auto", "random"] = "auto"
    dtype: Dtype = "auto"
    quantization: Literal["auto", "none", "int8", "fp8"] = "auto"
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    kernels: Literal["auto", "torch", "triton", "flashinfer"] = "auto"
    page_size: int = 0
    kv_cache_tokens: int = 0
    memory_share: float = 0.9
    """Share of the GPU's memory for weights and KV together; on a CPU, of a quarter of what the weights leave free."""
    max_model_len: int = 0
    max_num_seqs: int = 0
    max_num_batched_tokens: int = 0
    enable_prefix_caching: bool = True
    itl_target_ms: float | None = None
    run_ahead: int | None = None
    """Steps that are launched before their predecessors' tokens are known; None: 1 on a GPU, 0 on a CPU."""
    speculation: SpeculationConfig | None = None
    threads: int = 0
    seed: int = 0
