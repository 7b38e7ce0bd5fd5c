"""redline's engine alone, one shape and dtype, for `engine.py`: loop, scheduler and GPU runner as they serve."""

from __future__ import annotations

import json
import platform
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from engine import arguments, loads, longest, tell

from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.loop import EngineLoop
from redline.runtime.request import Output, Request, Sampling

STARTED = psutil.Process().create_time()
SHAPES = Path(__file__).resolve().parents[1] / "src/redline/recipes/shapes"


def main() -> None:
    asked = arguments(("engine", "shape", "dtype"))
    imported = time.time() - STARTED
    ceilings = measure_ceilings(asked.dtype)
    most = max(batch for batch, _, _ in loads(asked))
    runner = start(asked.shape, asked.dtype, asked.kernels, most, longest(asked), asked.seed, asked.kv)
    notes = runner.resolved()
    tell(versions=versions(), imports_s=round(imported, 2), ceilings=ceilings, **notes)
    loop = EngineLoop(runner, config=EngineConfig(model=Path(), enable_prefix_caching=True))
    loop.start()
    source = random.Random(asked.seed)
    first = timed(loop, source, runner, 1, asked.prompt, 1)
    tell(first_answer_ms=round(first * 1000, 2), start_to_first_token_s=round(time.time() - STARTED, 2))
    for batch, prompt, tokens in loads(asked):
        late = late_of(loop)
        timed(loop, source, runner, batch, prompt, 8)
        steps, prefills = [], []
        for _ in range(asked.repeats if prompt == asked.prompt else 1):
            one = timed(loop, source, runner, batch, prompt, 1)
            whole = timed(loop, source, runner, batch, prompt, tokens)
            steps.append((whole - one) / (tokens - 1) * 1000)
            prefills.append(one * 1000)
        step = statistics.median(steps)
        context = prompt + tokens / 2
        tell(
            batch=batch,
            prompt=prompt,
            step_ms=step,
            repeats_ms=steps,
            floor_ms=floor_ms(runner, batch, context, ceilings),
            gpu_ms=replay_ms(runner, batch),
            tokens_s=batch / step * 1000,
            prefill_ms=statistics.median(prefills),
            context=context,
            late=[now - before for before, now in zip(late, late_of(loop), strict=True)],
        )
    tell(wasted=loop.stats().wasted_tokens, failure=loop.failure or "none")
    loop.stop()


def late_of(loop: EngineLoop) -> tuple[int, float]:
    """Kernels compiled and graphs captured since the engine began to serve, and their seconds."""
    stats = loop.stats()
    return stats.late_compiles + stats.late_captures, stats.late_compile_s + stats.late_capture_s


def start(shape: str, dtype: str, kernels: str, most: int, length: int, seed: int, kv: str = "auto") -> GpuRunner:
    folder = shape_folder(shape)
    config = EngineConfig(
        model=folder,
        load_format="random",
        dtype="bfloat16",
        quantization="fp8" if dtype == "fp8" else "none",
        kernels=kernels,  # type: ignore[arg-type]
        kv_cache_dtype=kv,  # type: ignore[arg-type]
        device="cuda",
        max_num_seqs=most,
        max_model_len=length,
        seed=seed,
    )
    return GpuRunner(config, lambda text: print(text, flush=True))


def shape_folder(shape: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="redline-shape-"))
    config = json.loads((SHAPES / f"{shape}.json").read_text())["config"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def timed(loop: EngineLoop, source: random.Random, runner: GpuRunner, batch: int, prompt: int, tokens: int) -> float:
    """Seconds until all `batch` answers are there."""
    vocab = runner.limits.vocab_size
    ended = threading.Semaphore(0)
    faults: list[str] = []

    def sink(output: Output) -> None:
        if output.finish is not None:
            if output.error:
                faults.append(output.error)
            ended.release()

    sampling = Sampling(max_tokens=tokens, temperature=0.0)
    requests = [
        Request(f"{source.getrandbits(64):x}", [source.randrange(vocab) for _ in range(prompt)], sampling, sink)
        for _ in range(batch)
    ]
    started = time.perf_counter()
    for request in requests:
        loop.submit(request)
    for _ in requests:
        if not ended.acquire(timeout=120):
            raise SystemExit(f"no answer in 120 s: {loop.failure or loop.stats()}")
    if faults:
        raise SystemExit(f"{len(faults)} requests failed: {faults[0]} {loop.failure}")
    return time.perf_counter() - started


def replay_ms(runner: GpuRunner, batch: int) -> float:
    """One step without the host: the graph replayed, its rows where the last run left them."""
    bucket = runner.graphs.fits(batch)
    if bucket is None:
        return float("nan")
    torch.cuda.synchronize()
    return events_ms(lambda: runner.graphs.replay(bucket), 20)


def floor_ms(runner: GpuRunner, batch: int, context: float, ceilings: dict[str, float]) -> float:
    model = runner.model
    layers = sum(w.nbytes for layer in model.layers for w in (layer.qkv, layer.o, layer.gate_up, layer.down))
    read = (layers + model.head.nbytes) / (ceilings["read_gb_s"] * 1e9)
    shape = model.config
    layer_flops = 2 * batch * shape.num_layers * shape.layer_parameters
    head_flops = 2 * batch * shape.vocab_size * shape.hidden_size
    compute = layer_flops / (ceilings["linear_tflop_s"] * 1e12) + head_flops / (ceilings["bf16_tflop_s"] * 1e12)
    kv = batch * context * shape.kv_bytes(runner.setup.kv[0][0].dtype.itemsize) / (ceilings["read_gb_s"] * 1e9)
    return (max(read, compute) + kv) * 1000


def measure_ceilings(dtype: str) -> dict[str, float]:
    """Read bandwidth, the best of a sum and of a copy (bytes read plus written), and matrix rates on random data."""
    read, copy = bandwidths()
    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    bf16 = 2 * n**3 / events_ms(lambda: a @ b, 5) / 1e9
    linear = bf16
    if dtype == "fp8":
        one = torch.ones((), device="cuda")
        x, y = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        call: Callable[[], Any] = lambda: torch._scaled_mm(x, y, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
        linear = 2 * n**3 / events_ms(call, 5) / 1e9
    torch.cuda.empty_cache()
    return {
        "read_gb_s": max(read, copy),
        "sum_gb_s": read,
        "copy_gb_s": copy,
        "bf16_tflop_s": bf16,
        "linear_tflop_s": linear,
    }


def bandwidths() -> tuple[float, float]:
    """GB/s of a sum over 4 GiB and of a copy of 2 GiB."""
    big = torch.randint(0, 1 << 30, (1 << 30,), dtype=torch.int32, device="cuda")
    part = big[: 1 << 29]
    other = torch.empty_like(part)
    read = big.nbytes / events_ms(lambda: big.view(torch.float32).sum(), 5) / 1e6
    return read, 2 * part.nbytes / events_ms(lambda: other.copy_(part), 5) / 1e6


def events_ms(call: Callable[[], Any], repeats: int) -> float:
    """Median by device events, two calls to warm up."""
    for _ in range(2):
        call()
    times = []
    for _ in range(repeats):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        call()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return statistics.median(times)


def versions() -> dict[str, str]:
    import triton

    return {
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name(),
    }


if __name__ == "__main__":
    main()
