"""transformers' continuous batching: a paged KV cache, and requests that join and leave between two steps.

Written for transformers 5.13 to 5.23, whose configuration and attention names differ: each setting is passed when the
installed version has it, and refused when a flag asks for one that it lacks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import logging
import os
import queue
from collections.abc import Callable, Sequence
from typing import Any

from . import varlen
from .job import Job, Load
from .load import Loaded, LoadError, library
from .sampling import Row, choose

CPU_BATCH_SIZE = 8
"""Paged SDPA computes every query against every key of a step, so work grows with the square of the batch: at 50
clients 8 rows gave a CPU twice the tokens of 50 (docs/results/transformers-server.md)."""
CPU_BATCH_TOKENS = 512
"""For the same reason: longer steps waste more."""
CPU_KV_TOKENS = 32_768
"""transformers sizes the cache from all of the memory; on a CPU that is also everybody else's memory."""
BLOCK_SIZE = 32
"""transformers' 256 is made for FlashAttention's block tables; without them small blocks waste less."""


class ContinuousWorker:
    """Hands jobs to a ContinuousBatchingManager, which runs a thread of its own."""

    def __init__(self, loaded: Loaded, settings: dict[str, Any], *, compiled: bool, attention: str) -> None:
        self._loaded = loaded
        self._jobs: dict[str, Job] = {}
        self._rows: dict[str, Row] = {}
        self._stopping = False
        self._attention = attention
        self._config = _config(loaded, settings, compiled, attention)
        self._manager: Any = None
        self.samples = True
        """False under CUDA graphs and compilation: a recorded step cannot change with its requests."""

    def start(self, post: Callable[[Callable[[], None]], None]) -> None:
        """The manager calls back on the event loop that runs now."""
        model = self._loaded.model
        set_attention(self._loaded, self._attention, self._config)
        config = library("transformers").GenerationConfig(
            eos_token_id=-1, do_sample=False, pad_token_id=0, max_new_tokens=16
        )
        manager = model.init_continuous_batching(generation_config=config, continuous_batching_config=self._config)
        resolved = manager.continuous_batching_config
        self.samples = not (any(_pair(resolved.use_cuda_graph)) or resolved.use_async_batching or _compiles(resolved))
        if self.samples:
            manager.logit_processor = RowsProcessor(self._rows)
        self._manager = manager
        manager.warmup()
        manager.start()

    def submit(self, job: Job) -> None:
        row = Row(job)
        self._jobs[job.id] = job
        if row.needed:
            self._rows[job.id] = row
        # A non-streaming answer needs no hand-over per token unless its text can end it.
        self._manager.register_result_handler(job.id, functools.partial(self._on_output, job))
        accepted = self._manager.add_request(
            job.prompt,
            request_id=job.id,
            max_new_tokens=job.limit,
            streaming=job.incremental,
            eos_token_id=sorted(job.stop_ids) or -1,
        )
        if accepted is None:
            self._forget(job)
            job.receive([], "", RuntimeError(self.failure() or "continuous batching takes no more requests"))

    def _on_output(self, job: Job, output: Any) -> None:
        if output.is_finished():
            self._forget(job)
        if job.cancelled:
            return
        tokens = output.generated_tokens[job.seen :]
        job.seen += len(tokens)
        if output.error is not None:
            job.receive(tokens, "", RuntimeError(str(output.error)))
        elif tokens or output.is_finished():
            finish = (job.ends(tokens[-1], job.seen) or "length") if output.is_finished() and tokens else ""
            job.receive(tokens, finish or ("length" if output.is_finished() else ""), None)

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        self._rows.pop(job.id, None)

    def cancel(self, job: Job) -> None:
        if job.cancelled or job.id not in self._jobs:
            return
        job.cancelled = True
        self._forget(job)
        self._manager.cancel_request(job.id)
        router = self._manager.output_router
        with router._lock:
            router.result_handlers.pop(job.id, None)
        with contextlib.suppress(queue.Empty):  # a last output may have found no handler
            router.output_queue.get_nowait()

    def load(self) -> Load:
        processor = self._manager.batch_processor
        if processor is None:
            return Load(0, self._manager.input_queue.qsize(), None)
        scheduler, cache = processor.scheduler, processor.cache
        waiting = len(scheduler.waiting_requests) + self._manager.input_queue.qsize()
        return Load(len(scheduler.active_requests), waiting, kv_usage(cache))

    def failure(self) -> str:
        if self._manager is None or self._stopping or self._manager.is_running():
            return ""
        # Before 5.16 the manager itself keeps it.
        holders = (getattr(self._manager, "background_thread_status", None), self._manager)
        error = next((found for one in holders if (found := getattr(one, "fatal_error", None))), None)
        return f"{type(error).__name__}: {error}" if error else "the generating thread has ended"

    def steps(self) -> int:
        return int(getattr(self._manager, "current_batch", 0))

    def capacity(self) -> int:
        """Tokens of the longest request: one that can never have all its blocks would stop the whole generation."""
        cache = self._manager.batch_processor.cache
        return int(cache.num_blocks - 1) * self._block_size

    @property
    def _block_size(self) -> int:
        config = self._manager.continuous_batching_config
        return int(config.page_size if hasattr(config, "page_size") else config.block_size)

    def resolved(self) -> dict[str, Any]:
        config, cache = self._manager.continuous_batching_config, self._manager.batch_processor.cache
        return {
            "attn-implementation": self._loaded.model.config._attn_implementation,
            "max-batch-size": config.max_requests_per_batch,
            "max-batch-tokens": cache.max_batch_tokens,
            "num-blocks": cache.num_blocks,
            "block-size": self._block_size,
            "prefix-caching": bool(config.allow_block_sharing),
            "cuda-graphs": any(_pair(config.use_cuda_graph)),
            "async-batching": bool(config.use_async_batching),
            "scheduler": config.scheduler_type,
            "per-request-sampling": self.samples,
        }

    def stop(self) -> None:
        self._stopping = True
        if self._manager is not None and self._manager.is_running():
            self._manager.stop(block=False, hard_stop=True)


def _pair(graphs: Any) -> tuple[bool, ...]:
    return tuple(graphs) if isinstance(graphs, tuple) else (bool(graphs),)


def _compiles(config: Any) -> bool:
    return config.varlen_compile_config is not None or config.decode_compile_config is not None


def kv_usage(cache: Any) -> float | None:
    """Share of KV blocks that requests hold; None when this version of transformers does not tell."""
    if hasattr(cache, "get_num_free_blocks"):
        return float(1 - cache.get_num_free_blocks() / max(1, cache.num_blocks))
    if not hasattr(cache, "cache_allocators"):
        return None
    # 5.23 counts blocks kept for prefix caching as taken; the requests' own tables do not.
    allocators = list(cache.cache_allocators.values())
    held = sum(len(set(itertools.chain(*list(one.block_table.values())))) for one in allocators)
    return float(held / max(1, sum(one.num_blocks for one in allocators)))


def _config(loaded: Loaded, settings: dict[str, Any], compiled: bool, attention: str) -> Any:
    """`settings`: flag values, 0 or None where the choice is ours."""
    kind = getattr(library("transformers.generation.configuration_utils"), "ContinuousBatchingConfig", None)
    if kind is None:
        raise LoadError("this transformers has no continuous batching that can be configured")
    known = {one.name for one in dataclasses.fields(kind)}
    block = "page_size" if "page_size" in known else "block_size"
    wanted = {
        block: settings["block-size"],
        "num_blocks": settings["num-blocks"],
        "max_batch_tokens": settings["max-batch-tokens"],
        "max_requests_per_batch": settings["max-batch-size"],
        "max_memory_percent": settings["memory-share"],
        "scheduler_type": settings["scheduler"],
        "use_cuda_graph": settings["cuda-graphs"],
        "default_compile_level": 1 if compiled else 0,
    }
    lacking = [name for name, value in wanted.items() if value and name not in known]
    if lacking:
        raise LoadError(f"this transformers has no {', '.join(lacking)} for continuous batching")
    ours = _cpu_choices(loaded, wanted.get(block) or BLOCK_SIZE) if loaded.device == "cpu" else {}
    if ours and attention != varlen.NAME:
        ours["max_requests_per_batch"] = CPU_BATCH_SIZE
    if not flash_installed() or loaded.device == "cpu":
        ours[block] = BLOCK_SIZE
    chosen = {**ours, **{name: value for name, value in wanted.items() if value or value is False}}
    chosen["allow_block_sharing"] = settings["prefix-caching"]
    chosen["seed"] = settings["seed"]
    return kind(**{name: value for name, value in chosen.items() if name in known})


def _cpu_choices(loaded: Loaded, block: int) -> dict[str, Any]:
    tokens = max(CPU_KV_TOKENS, loaded.max_model_len + 2 * block)
    blocks = max(1, min(tokens, _affordable(loaded)) // block)
    return {
        "max_batch_tokens": CPU_BATCH_TOKENS,
        "num_blocks": blocks,
    }


def _affordable(loaded: Loaded) -> int:
    """KV tokens that fit in a quarter of the free memory, the attention mask of a step included."""
    config = loaded.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = int(loaded.model.dtype.itemsize)
    per_token = 2 * config.num_hidden_layers * heads * width * size + CPU_BATCH_TOKENS * size
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(4096, int(free // 4 // per_token))


def flash_installed() -> bool:
    names = ("flash_attn", "flash_attn_interface", "flash_attn_3")
    return any(importlib.util.find_spec(name) is not None for name in names)


def set_attention(loaded: Loaded, wanted: str, config: Any) -> None:
    """Puts a paged attention in place. On CUDA the fastest that works: FlashAttention when installed, else SDPA.

    transformers tries the hub's kernels by itself when the `kernels` package is there, which fails without a network
    after the model was loaded; here a failure means the next one.
    """
    model, named = loaded.model, wanted.removeprefix("paged|")
    if named == varlen.NAME:
        varlen.register(loaded)
    if wanted == "auto":
        named = _fastest(model)
    if hasattr(config, "auto_switch_to_flash"):  # newer ones: SDPA itself knows the paged cache
        if named == varlen.NAME:
            raise LoadError(f"this transformers takes no attention of others, such as {named}")
        config.auto_switch_to_flash = False
        model.set_attn_implementation("paged|eager" if named == "eager" else named)
    else:
        model.set_attn_implementation(f"paged|{named}")


def _fastest(model: Any) -> str:
    for flash in _flash_candidates(model):
        try:
            model.set_attn_implementation(flash)
        except Exception as error:
            logging.getLogger("hf_server").warning("%s cannot be used: %s", flash, error)
            continue
        return flash
    return "sdpa"


def _flash_candidates(model: Any) -> list[str]:
    if model.device.type != "cuda" or not getattr(model, "_supports_flash_attn", False):
        return []
    kernels = importlib.util.find_spec("kernels") is not None
    return ["flash_attention_3", "flash_attention_2"] if kernels or flash_installed() else []


class RowsProcessor:
    """Stands in for transformers' list of logits processors: each request by its own settings.

    Steps in which no request asks for more than the likeliest token skip it.
    """

    tensors_required = 0

    def __init__(self, rows: dict[str, Row]) -> None:
        self._rows = rows
        self._current: Sequence[Row | None] = ()

    @property
    def do_processing(self) -> bool:
        return bool(self._current)

    def fill_defaults(self, int32_tensor: Any) -> None:
        pass

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        pass

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: Any) -> Any:
        current = [self._rows.get(one.state.request_id) for one in requests_in_batch if one.has_new_token]
        self._current = current if any(current) else ()
        return arg_storage

    def __call__(self, input_ids: Any, scores: Any, logits_processor_args: Any) -> Any:
        """[rows, vocabulary]; what comes after the rows with a new token belongs to prompts still being read."""
        import torch

        count = len(self._current)
        return torch.cat([choose(scores[:count], self._current), scores[count:]])
