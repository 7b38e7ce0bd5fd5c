"""The runner for CPUs: a launch computes, a collect hands over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch

from redline.compiled import NoCompiler
from redline.errors import Unsupported, UsageError
from redline.runtime.architecture import read_config
from redline.runtime.assemble import assemble
from redline.runtime.batch import Batch
from redline.runtime.choose_tokens import Chooser
from redline.runtime.config import EngineConfig
from redline.runtime.cpu_limits import SMALL_MODEL_BYTES, choose_dtypes, choose_limits, choose_threads
from redline.runtime.kernels.native import NativePass, Unfit
from redline.runtime.kernels.torch import TorchKernels
from redline.runtime.request import Request, Sampling
from redline.runtime.step import Chunk, Launched, Limits, Sampled, Step
from redline.runtime.weights import load_model


@dataclass
class _Done:
    step: Step
    sampled: list[Sampled]


class CpuRunner:
    """See `Runner`. Raises what `read_config` and `load_model` raise, `UsageError` for flags that no CPU can follow."""

    def __init__(self, config: EngineConfig, progress: Callable[[str], None] = lambda _: None) -> None:
        _check(config)
        started = time.perf_counter()
        model = read_config(config.model)
        dtypes = choose_dtypes(config.dtype, model.dtype)
        weight_bytes = model.parameters * dtypes.weights.itemsize
        self._threads, why = choose_threads(config.threads, weight_bytes)
        self._set_threads()
        progress(f"loading {weight_bytes / 1e6:.0f} MB of weights")
        self._model = load_model(
            model,
            None if config.load_format == "random" else config.model,
            dtype=dtypes.weights,
            device="cpu",
            quantization=config.quantization,
            seed=config.seed,
            kernels=TorchKernels(None if dtypes.weights == dtypes.activations else dtypes.weights),
            activations=dtypes.activations,
            positions=config.max_model_len or None,
        )
        self._limits = choose_limits(config, model, dtypes.activations.itemsize)
        self._chooser = Chooser()
        self._kv = self._model.allocate_kv(self._limits.pages, self._limits.page_size, "cpu")
        self._native, kernels = self._compiled(config, weight_bytes)
        stored = model.quantization.layout if model.quantization else "none"
        self._resolved = {
            "device": "cpu",
            "kernels": kernels,
            "weights": f"{str(dtypes.weights).removeprefix('torch.')} ({dtypes.why})",
            "activations": str(dtypes.activations).removeprefix("torch."),
            "quantization": stored if config.quantization == "auto" else config.quantization,
            "threads": f"{self._threads} ({why})",
            "kv": f"{self._limits.pages - 1} pages of {self._limits.page_size} tokens",
            "kv-bytes": str(sum(part.nbytes for pair in self._kv for part in pair)),
        }
        self._warm_up()
        progress(f"ready after {time.perf_counter() - started:.2f} s")

    @property
    def limits(self) -> Limits:
        return self._limits

    def launch(self, step: Step) -> Launched:
        if threading.get_ident() != self._thread:
            self._set_threads()
        with torch.inference_mode():
            batch, places = assemble(step, self._limits.page_size)
            logits = self._logits(batch)
            return _Done(step, self._chooser.choose(logits, places) if len(logits) else [])

    def _logits(self, batch: Batch) -> torch.Tensor:
        if self._native is not None and self._native.suits(batch):
            if not torch.autograd.profiler._is_profiler_enabled:
                return self._native.logits(batch)
            with torch.profiler.record_function("redline::compiled_pass"):
                return self._native.logits(batch)
        return self._model.logits(self._model.forward(batch, self._kv))

    def collect(self, launched: Launched) -> list[Sampled]:
        return cast(_Done, launched).sampled

    def release(self, request: Request) -> None:
        self._chooser.release(request)

    def resolved(self) -> dict[str, str]:
        return dict(self._resolved)

    def close(self) -> None:
        del self._kv, self._model, self._native

    def _compiled(self, config: EngineConfig, weight_bytes: int) -> tuple[NativePass | None, str]:
        """(the compiled pass, what computes). It has one thread, so it is for models that need no more."""
        if config.kernels == "torch":
            return None, "torch"
        if self._threads > 1 or weight_bytes > SMALL_MODEL_BYTES:
            return None, "torch (several threads)" if self._threads > 1 else "torch (the model is not small)"
        try:
            return NativePass(self._model, self._kv), "compiled for this CPU; torch for long prompts"
        except (NoCompiler, Unfit) as why:
            return None, f"torch ({why})"

    def _set_threads(self) -> None:
        """OpenMP keeps the number per calling thread, and the engine's thread is not the one that made us."""
        torch.set_num_threads(self._threads)
        self._thread = threading.get_ident()

    def _warm_up(self) -> None:
        """One prefill and one decode, so that the first request does not pay for torch's first calls."""
        tokens = min(8, self._limits.max_model_len - 1)
        request = Request("warm-up", [0] * (tokens + 1), Sampling(temperature=0), lambda _: None)
        request.pages = [0] * -(-(tokens + 1) // self._limits.page_size)
        for start, length in ((0, tokens), (tokens, 1)):
            if length:
                self.launch(Step(0, [Chunk(request, start, length, samples=True)], length))


def _check(config: EngineConfig) -> None:
    if config.kernels not in ("auto", "torch"):
        raise UsageError(f"--kernels {config.kernels} on a CPU", fix="--kernels torch")
    if config.kv_cache_dtype == "fp8":
        raise Unsupported("--kv-cache-dtype fp8 on a CPU", fix="leave it out")
    if config.run_ahead:
        raise UsageError(f"--run-ahead {config.run_ahead} on a CPU: steps are computed as they are launched")
