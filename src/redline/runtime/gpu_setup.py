"""What a GPU runner starts with: dtype, kernels, weights, how many pages fit, and what all that took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from redline.errors import EnvironmentFault, Unsupported, UsageError
from redline.runtime.architecture import ModelConfig, read_config
from redline.runtime.batch import Batch
from redline.runtime.config import EngineConfig
from redline.runtime.graph import buckets_upto
from redline.runtime.kernels.tiers import pick_tier, without
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.linear import FP8
from redline.runtime.state import Tables
from redline.runtime.step import Limits
from redline.runtime.weights import load_model

if TYPE_CHECKING:
    from redline.runtime.kernels.triton_step import DecodeStep
    from redline.runtime.model import Model

Compiling = Callable[[], None]
PAGE_SIZE = 32
SEQUENCES = 256
BATCHED_TOKENS = 8192
HEADROOM = 512 << 20
"""Bytes left for what the device's libraries take later."""


class Setup:
    """Everything that exists before the first step, but for the graphs. `graphs`: steps can be captured."""

    def __init__(self, config: EngineConfig, progress: Callable[[str], None]) -> None:
        self.config, self.progress = config, progress
        self.phases: dict[str, float] = {}
        self.device = _device(config)
        cuda = self.device.type == "cuda"
        self.shape = read_config(config.model)
        self.dtype = _dtype(config, self.shape, cuda)
        self.kv_dtype = _kv_dtype(config, self.device, self.dtype)
        self.page_size = config.page_size or PAGE_SIZE
        longest = _longest(config, self.shape)
        with self.phase("kernels"):
            tier = pick_tier(config.kernels, self.device, self.shape, self.page_size, self.kv_dtype, progress)
        self.kernels, self.draw, self.why_no_graphs = tier.kernels, tier.draw, tier.why_no_graphs
        self.graphs = cuda and not tier.why_no_graphs
        self._notes = dict(tier.notes)
        sequences = config.max_num_seqs or SEQUENCES
        compiled = self.compiling(self.shape, self.dtype, self.kv_dtype)
        with self.phase("weights"):
            self.model = self._load(longest)
        with self.phase("compile"):
            compiled()
        batched = max(config.max_num_batched_tokens or BATCHED_TOKENS, sequences)
        with self.phase("memory"):
            pages, longest = self._pages(sequences, batched, longest)
        self.limits = Limits(pages, self.page_size, sequences, batched, longest, self.shape.vocab_size)
        self.kv = self.model.allocate_kv(pages, self.page_size, self.device, self.kv_dtype)
        self.tables = Tables(sequences, -(-longest // self.page_size), self.page_size, self.device)
        self.step = self._decode_step()
        if self.graphs:
            with self.phase("choose"):
                self._choose()

    def notes(self) -> dict[str, str]:
        """What was chosen, and the seconds of each phase of the start."""
        limits = self.limits
        pages = limits.pages - 1
        return {
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "dtype": str(self.dtype).removeprefix("torch."),
            "kernels": self.kernels.name,
            "kv-bytes": str(sum(part.nbytes for pair in self.kv for part in pair)),
            "kv_cache": f"{pages * limits.page_size} tokens in {pages} pages of {limits.page_size}, "
            + str(self.kv_dtype).removeprefix("torch."),
            "max_model_len": str(limits.max_model_len),
            "max_num_seqs": str(limits.max_seqs),
            "max_num_batched_tokens": str(limits.max_batched_tokens),
            "start_s": ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.phases.items()),
        } | self._notes

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.phases[name] = time.perf_counter() - started
        self.progress(f"{name}: {self.phases[name]:.2f} s")

    def _load(self, longest: int) -> Model:
        config = self.config
        model = load_model(
            self.shape,
            None if config.load_format == "random" else config.model,
            dtype=self.dtype,
            device=self.device,
            quantization=config.quantization,
            seed=config.seed,
            kernels=self.kernels,
            positions=longest,
        )
        _wait(self.device)
        return model

    def compiling(self, shape: ModelConfig, dtype: torch.dtype, kv_dtype: torch.dtype | None = None) -> Compiling:
        """Begins to compile what a model needs; the result waits for it. `kv_dtype` None: a draft model's."""
        if self.device.type != "cuda" or isinstance(self.kernels, TorchKernels):
            return lambda: None
        from redline.runtime.kernels.triton import TritonKernels
        from redline.runtime.kernels.warm import Start, first_launches, run_all

        assert isinstance(self.kernels, TritonKernels)
        stored = shape.quantization.layout if shape.quantization else ""
        start = Start(
            page_size=self.page_size,
            sequences=self.config.max_num_seqs or SEQUENCES,
            longest=_longest(self.config, shape) if kv_dtype else shape.max_position,
            dtype=dtype,
            kv_dtype=kv_dtype or dtype,
            device=self.device,
            fp8=stored == "fp8" or (self.config.quantization == "fp8" and kv_dtype is not None),
            # as `triton_step.suits` will find when the weights are there
            fused=bool(kv_dtype)
            and stored in ("", "fp8")
            and dtype != torch.float16
            and not (without("step") or without("rope")),
        )
        return run_all(self.device, list(first_launches(self.kernels, self.draw, shape, start)))

    def _decode_step(self) -> DecodeStep | None:
        """Products with what stands around them, where the kernels and the weights are of the right kinds."""
        if isinstance(self.kernels, TorchKernels) or without("step"):
            return None
        from redline.runtime.kernels.triton import TritonKernels
        from redline.runtime.kernels.triton_step import DecodeStep, suits

        if isinstance(self.kernels, TritonKernels) and suits(self.model):
            return DecodeStep(self.model, self.kernels, not without("rope"))
        return None

    def _choose(self) -> None:
        from redline.runtime.kernels.choose import Chooser
        from redline.runtime.kernels.triton import TritonKernels

        if isinstance(self.kernels, TritonKernels):
            chooser = Chooser(self.kernels, self.model, self.step)
            limits = self.limits
            buckets = buckets_upto(limits.max_seqs)
            chooser.choose(self.kv, buckets, self.page_size, limits.pages, limits.max_model_len)
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            self._notes |= {f"choice: {what}": how for what, how in chooser.notes.items()}

    def _pages(self, sequences: int, batched: int, longest: int) -> tuple[int, int]:
        """Pages, page 0 included, and the longest sequence that they hold."""
        weights, per_token = self._draft_bytes()
        per_page = (self.shape.kv_bytes(self.kv_dtype.itemsize) + per_token) * self.page_size
        if self.device.type == "cuda":
            left = self._left_for_kv(sequences, batched, longest) - weights
        else:
            left = 1 << 62 if self.config.kv_cache_tokens else 1024 * per_page
        wanted = self.config.kv_cache_tokens
        pages = -(-wanted // self.page_size) if wanted else left // per_page - 1
        if pages < 1 or (pages + 1) * per_page > left:
            raise EnvironmentFault(
                f"no room for the KV cache: {left / 2**30:.2f} GiB are left and {max(pages, 1)} pages were to be had",
                why=f"a page of {self.page_size} tokens takes {per_page / 2**20:.2f} MiB",
                fix="raise --memory-share, or lower --max-num-batched-tokens or --max-num-seqs",
            )
        if pages * self.page_size < longest and self.config.max_model_len:
            raise EnvironmentFault(
                f"{pages * self.page_size} tokens of KV cache cannot hold --max-model-len {longest}",
                fix="lower --max-model-len",
            )
        return pages + 1, min(longest, pages * self.page_size)

    def _draft_bytes(self) -> tuple[int, int]:
        """What a draft model will take: its weights, and its KV of one token, on pages of the same number."""
        spec = self.config.speculation
        if spec is None or spec.draft_model is None:
            return 0, 0
        shape = read_config(spec.draft_model)
        return shape.parameters * self.dtype.itemsize, shape.kv_bytes(self.dtype.itemsize)

    def _left_for_kv(self, sequences: int, batched: int, longest: int) -> int:
        """Bytes of the configured share that weights, a full step and the graphs leave."""
        peak = self._peak_of_full_step(sequences, batched, longest)
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(self.device)
        # logits in the model's dtype and in float32: the largest tensors of a decode step, which graphs keep
        graphs = sequences * self.shape.vocab_size * (4 + self.dtype.itemsize)
        return int(total * self.config.memory_share) - (total - free) - peak - graphs - HEADROOM

    @torch.inference_mode()
    def _peak_of_full_step(self, sequences: int, batched: int, longest: int) -> int:
        """Bytes that a step of `batched` prompt tokens takes beyond weights and KV: measured."""
        rows = max(1, min(sequences, batched), -(-batched // longest))
        length = -(-batched // rows)
        lengths = [min(length, batched - i * length) for i in range(rows) if i * length < batched]
        starts = [0]
        for n in lengths:
            starts.append(starts[-1] + n)
        whole = torch.zeros(batched, dtype=torch.int64, device=self.device)
        batch = Batch(
            ids=whole,
            positions=whole,
            slots=whole,
            starts=torch.tensor(starts, dtype=torch.int32, device=self.device),
            seq_lens=torch.tensor(lengths, dtype=torch.int32, device=self.device),
            page_tables=torch.zeros(len(lengths), -(-longest // self.page_size), dtype=torch.int32, device=self.device),
            logits_at=torch.tensor(starts[1:], device=self.device) - 1,
            max_query=max(lengths),
            max_seq=max(lengths),
            host_starts=starts,
            host_seq_lens=lengths,
        )
        kv = self.model.allocate_kv(1, self.page_size, self.device, self.kv_dtype)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.model.logits(self.model.forward(batch, kv))
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


def _device(config: EngineConfig) -> torch.device:
    if config.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EnvironmentFault("no GPU that torch can use", fix="--device cpu")
    return torch.device("cuda", torch.cuda.current_device())


def _dtype(config: EngineConfig, shape: ModelConfig, cuda: bool) -> torch.dtype:
    name = shape.dtype if config.dtype == "auto" else config.dtype
    if name == "float32" and config.dtype == "auto" and cuda:
        name = "bfloat16"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _kv_dtype(config: EngineConfig, device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """float8 without scales: keys and values are some tens at most, and larger ones become float8's largest, 448."""
    if config.kv_cache_dtype == "auto":
        return dtype
    if config.kernels == "torch":
        raise Unsupported("--kv-cache-dtype fp8 with --kernels torch", fix="--kernels triton")
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise Unsupported(
            "--kv-cache-dtype fp8 on this GPU",
            why="it has no float8 units (compute capability 8.9)",
            fix="leave it out",
        )
    return FP8


def _longest(config: EngineConfig, shape: ModelConfig) -> int:
    if config.max_model_len > shape.max_position:
        raise UsageError(f"--max-model-len {config.max_model_len}: the model was made for {shape.max_position}")
    return config.max_model_len or shape.max_position


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
