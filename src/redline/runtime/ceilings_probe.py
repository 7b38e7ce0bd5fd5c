"""What this card, or this CPU, reaches: bytes read and copied per second, and FLOPs per second of each type.

A program for any interpreter that has torch; it imports nothing of redline's. It prints one JSON object on its last
line. Data are random: zeros and constants are multiplied with less power, so that a card clocks higher on them than on
any model, and some memories read them faster. Each number is the best of several rounds (a ceiling is what is possible)
with their spread; every result is looked at, so that nothing can be left out of the calculation.

    python -P ceilings_probe.py [--device cuda:0|cpu] [--seconds 0.5] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

ROUNDS = 5
LONGEST = 10.0
"""Times as long as asked for, and no further round begins: a CPU emulates a type it lacks, a thousand times slower."""
Timed = Callable[[], float]
"""Seconds of one call."""


def main() -> int:
    asked = _arguments()
    device = torch.device(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cpu" and asked.threads:
        torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    found: dict[str, Any] = _about(device)
    with torch.inference_mode():
        found["read"] = _say("reading", lambda: _read(device, asked.seconds))
        found["copy"] = _say("copying", lambda: _copy(device, asked.seconds))
        found["flops"] = {}
        for name in asked.dtypes.split(",") if asked.dtypes else _dtypes(device):
            found["flops"][name] = _say(name, partial(_flops, device, name, asked.seconds))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    top = argparse.ArgumentParser()
    top.add_argument("--device", default="")
    top.add_argument("--seconds", type=float, default=0.5, help="of each round's measurement, about")
    top.add_argument("--threads", type=int, default=0)
    top.add_argument("--dtypes", default="")
    return top.parse_args()


def _about(device: torch.device) -> dict[str, Any]:
    told: dict[str, Any] = {"torch": torch.__version__, "device": device.type}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        told |= {"name": about.name, "memory_bytes": about.total_memory, "multiprocessors": about.multi_processor_count}
        told |= {"capability": f"{about.major}.{about.minor}", "cuda": torch.version.cuda}
    else:
        told |= {"threads": torch.get_num_threads(), "isa": torch.backends.cpu.get_cpu_capability()}
    return told


def _dtypes(device: torch.device) -> list[str]:
    if device.type == "cpu":
        return ["fp32", "bf16"]
    major, minor = torch.cuda.get_device_capability(device)
    fp8 = ["fp8"] if (major, minor) >= (8, 9) else []
    return ["bf16", "fp16", "tf32", *fp8]


def _say(what: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    sys.stderr.write(f"redline-ceilings {what}\n")
    sys.stderr.flush()
    try:
        return measure()
    except Exception as error:  # one type that a card or a build lacks must not cost the others
        return {"skipped": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}


def _best(device: torch.device, work: Callable[[], Any], amount: float, seconds: float) -> dict[str, Any]:
    """Per second, of the best round; `spread` is (best - median) / best."""
    timed = _timer(device, work)
    timed()
    once = max(timed(), 1e-6)
    count = max(1, min(1000, int(seconds / ROUNDS / once)))
    rates: list[float] = []
    until = time.perf_counter() + LONGEST * seconds
    while len(rates) < ROUNDS and (not rates or time.perf_counter() < until):
        rates.append(amount / min(timed() for _ in range(count)))
    best = max(rates)
    return {"per_s": best, "spread": (best - statistics.median(rates)) / best, "rounds": len(rates), "calls": count}


def _timer(device: torch.device, work: Callable[[], Any]) -> Timed:
    """Device time by events on a GPU: the launch is the host's business."""
    if device.type != "cuda":

        def on_cpu() -> float:
            began = time.perf_counter()
            work()
            return time.perf_counter() - began

        return on_cpu

    make: Any = torch.cuda.Event  # it has no types

    def on_gpu() -> float:
        first, last = make(enable_timing=True), make(enable_timing=True)
        first.record()
        work()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1e3

    return on_gpu


def _size(device: torch.device) -> int:
    """Bytes: far beyond any cache, and no more than an eighth of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return min(4 << 30, free // 8) // 4096 * 4096
    return 256 << 20


def _read(device: torch.device, seconds: float) -> dict[str, Any]:
    """A sum: every byte is needed for the answer, and nothing is written. And a matrix times a vector, which reads
    weights as decoding does; the better of both counts."""
    size = _size(device)
    floats = torch.randn(size // 4, device=device)
    parts: Any = torch.split(floats, 1 << 24)
    expected = float(sum(float(part.double().sum()) for part in parts))
    summed = _best(device, lambda: floats.sum(), size, seconds)
    if abs(float(floats.sum()) - expected) > 1e-2 * size**0.5:
        raise ArithmeticError("the sum of what was read is wrong")
    rows = 8192
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    matrix = floats[: size // 4 // rows * rows].view(-1, rows).to(kind)
    vector = torch.randn(rows, device=device, dtype=kind)
    times = _best(device, lambda: torch.mv(matrix, vector), matrix.numel() * matrix.element_size(), seconds)
    best = max((summed, times), key=lambda one: float(one["per_s"]))
    return {**best, "sum_per_s": summed["per_s"], "gemv_per_s": times["per_s"], "bytes": size}


def _copy(device: torch.device, seconds: float) -> dict[str, Any]:
    """Bytes read and bytes written, together."""
    size = _size(device) // 2
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    found = _best(device, lambda: target.copy_(source), 2.0 * size, seconds)
    if not torch.equal(target[-1000:], source[-1000:]):
        raise ArithmeticError("what was copied is not what is there")
    return {**found, "bytes": size}


def _flops(device: torch.device, name: str, seconds: float) -> dict[str, Any]:
    """The best of a few shapes, as a model's layers have them."""
    sizes = (
        [(8192, 8192, 8192), (4096, 14336, 4096)] if device.type == "cuda" else [(1024, 1024, 1024), (512, 4096, 1024)]
    )
    best: dict[str, Any] = {}
    for m, n, k in sizes:
        work = _product(device, name, m, n, k)
        found = _best(device, work, 2.0 * m * n * k, seconds)
        if not best or found["per_s"] > best["per_s"]:
            best = {**found, "shape": [m, n, k]}
        if 2.0 * m * n * k / found["per_s"] > seconds:
            break
    return best


def _product(device: torch.device, name: str, m: int, n: int, k: int) -> Callable[[], Any]:
    """C = A·B of random numbers; one entry is checked against the sum that it stands for."""
    if name == "fp8":
        return _product_fp8(device, m, n, k)
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}
    left, right = (torch.randn(shape, device=device).to(kinds[name]) for shape in ((m, k), (k, n)))
    made = torch.matmul(left, right)
    _check(float(made[3, 5]), float((left[3].double() * right[:, 5].double()).sum()), k, 0.03)
    return lambda: torch.matmul(left, right, out=made)


def _product_fp8(device: torch.device, m: int, n: int, k: int) -> Callable[[], Any]:
    left = torch.randn(m, k, device=device).to(torch.float8_e4m3fn)
    right = torch.randn(n, k, device=device).to(torch.float8_e4m3fn).t()
    one = torch.ones((), device=device)

    def multiply() -> Any:
        return torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    expected = float((left[3].double() * right.t()[5].double()).sum())
    _check(float(multiply()[3, 5]), expected, k, 0.03)
    return multiply


def _check(found: float, expected: float, k: int, tolerance: float) -> None:
    if abs(found - expected) > tolerance * k**0.5:
        raise ArithmeticError(f"the product is wrong: {found:g} instead of {expected:g}")


if __name__ == "__main__":
    sys.exit(main())
