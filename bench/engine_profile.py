"""Kernels of one decode step, their times and the gaps between them, for `engine.py --profile`."""

from __future__ import annotations

import itertools
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from engine import arguments
from engine_own import start, timed
from torch.profiler import ProfilerActivity, profile

from redline.runtime.config import EngineConfig
from redline.runtime.gpu import GpuRunner
from redline.runtime.loop import EngineLoop

REPLAYS = 5


def main() -> int:
    asked = arguments()
    for shape in asked.shapes.split(","):
        for dtype in asked.dtypes.split(","):
            length = asked.prompt + asked.tokens + 128
            sizes = [int(size) for size in asked.batch.split(",")]
            runner = start(shape, dtype, asked.kernels, max(sizes), length, asked.seed, asked.kv)
            loop = EngineLoop(runner, config=EngineConfig(model=Path()))
            loop.start()
            for batch in sizes:
                timed(loop, random.Random(batch), runner, batch, asked.prompt, asked.tokens)
                print(f"\n== {shape} {dtype} B={batch}, context {asked.prompt + asked.tokens}", flush=True)
                table(runner, batch)
            loop.stop()
            print(f"after the end {torch.cuda.memory_allocated() / 2**20:.0f} MiB are held", flush=True)
    return 0


def table(runner: GpuRunner, batch: int) -> None:
    bucket = runner.graphs.fits(batch)
    if bucket is None:
        print("no graph for this batch")
        return
    runner.graphs.replay(bucket)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(REPLAYS):
            runner.graphs.replay(bucket)
        torch.cuda.synchronize()
    events = [e for e in recorded.profiler.kineto_results.events() if "CUDA" in str(e.device_type())]
    spans = sorted((e.start_ns(), e.duration_ns(), e.name()) for e in events if e.duration_ns() > 0)
    if not spans:
        print("the profiler saw no kernels")
        return
    sums: dict[str, list[int]] = defaultdict(list)
    for _, took, name in spans:
        sums[name].append(took)
    whole = (spans[-1][0] + spans[-1][1] - spans[0][0]) / 1e3 / REPLAYS
    busy = sum(took for _, took, _ in spans) / 1e3 / REPLAYS
    gaps = sorted(later[0] - earlier[0] - earlier[1] for earlier, later in itertools.pairwise(spans))
    print(f"step {whole:.1f} µs, kernels {busy:.1f} µs, {len(spans) / REPLAYS:.0f} launches", end="; ")
    print(f"gap between kernels: median {gaps[len(gaps) // 2] / 1e3:.2f} µs, largest {gaps[-1] / 1e3:.1f} µs")
    print("   share    us/step   calls   us/call  kernel")
    for name, times in sorted(sums.items(), key=lambda item: -sum(item[1]))[:16]:
        per_step = sum(times) / 1e3 / REPLAYS
        cells = (100 * per_step / whole, per_step, len(times) / REPLAYS, sum(times) / 1e3 / len(times))
        print("  {:5.1f} % {:9.1f} {:7.0f} {:9.2f}  {}".format(*cells, short(name)))


def short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= 90 else text[:87] + "..."


if __name__ == "__main__":
    sys.exit(main())
