"""Matrix products of a decode step, cut in many ways, on this GPU: for choosing which of them are offered.

    python bench/engine_products.py [--shapes llama-3.2-1b,llama-3-8b] [--rows 1,8,64] [--dtypes bf16,fp8]

Each way multiplies the weights of several layers in turn, more than the cache holds, inside a CUDA graph, with the
launches overlapping as in a step. The share is that of the measured read bandwidth; weight bytes only. Each result is
compared with the library's first.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from functools import partial

import torch
from engine_own import SHAPES, bandwidths

from redline.runtime.kernels.choose import graph_time
from redline.runtime.kernels.triton import TritonKernels, scaled_product
from redline.runtime.kernels.triton_linear import Around, Product, Tile, gemv, skinny
from redline.runtime.kernels.warm import run_all
from redline.runtime.linear import Fp8, Plain

SPAN = 300 << 20
PROCESSORS = torch.cuda.get_device_properties(0).multi_processor_count if torch.cuda.is_available() else 132


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="llama-3.2-1b,llama-3-8b")
    parser.add_argument("--rows", default="1,8,64")
    parser.add_argument("--dtypes", default="bf16,fp8")
    asked = parser.parse_args()
    read = max(bandwidths())
    print(f"{torch.cuda.get_device_name()}, read {read:.0f} GB/s", flush=True)
    for shape, dtype in itertools.product(asked.shapes.split(","), asked.dtypes.split(",")):
        config = json.loads((SHAPES / f"{shape}.json").read_text())["config"]
        for what, n, k in sizes(config):
            weights = [weight(dtype, n, k) for _ in range(max(2, -(-SPAN // (n * k * (1 if dtype == "fp8" else 2)))))]
            for rows in map(int, asked.rows.split(",")):
                compare(f"{shape} {dtype} {what} [{n}, {k}] rows {rows}", weights, rows, what == "gate_up", read)


def sizes(config: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    yield "qkv", (heads + 2 * config["num_key_value_heads"]) * dim, hidden
    yield "o", hidden, heads * dim
    yield "gate_up", 2 * config["intermediate_size"], hidden
    yield "down", hidden, config["intermediate_size"]


def weight(dtype: str, n: int, k: int) -> Plain | Fp8:
    dense = torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * k**-0.5
    return Fp8.quantize(dense) if dtype == "fp8" else Plain(dense)


def ways(rows: int, n: int, k: int, fp8: bool) -> Iterator[tuple[str, Product, bool]]:
    """(name, product, whether it takes rounded rows)"""
    if rows == 1:
        warps = 4 if k <= 4096 else 8 if k <= 8192 else 16
        for block_n, each in itertools.product((2, 4), (8, 16, 24)):
            programs = PROCESSORS * each // warps
            yield f"gemv{block_n}w{warps}p{each}", partial(gemv, block_n=block_n, warps=warps, programs=programs), False
    if rows == 1 and not fp8:
        return
    cuts = [(64, 1, 4, 4), (64, 2, 3, 4), (64, 2, 2, 4), (128, 1, 3, 8)] + ([(64, 1, 3, 4)] if rows > 16 else [])
    for block_n, wide, stages, warps in cuts:
        block_k = wide * (128 if fp8 else 64)
        for each in (1, 2, 4):
            blocks = -(-n // block_n)
            splits = min(1 << max(0, (each * PROCESSORS - 1) // blocks).bit_length(), 16, k // block_k)
            tile = Tile(block_n, block_k, stages, splits, warps)
            yield f"{block_n}x{block_k}s{stages}w{warps}/{splits}", partial(skinny, tile=tile), fp8


def compare(what: str, weights: list[Plain | Fp8], rows: int, gated: bool, read: float) -> None:
    (n, k), kernels = weights[0].weight.shape, TritonKernels(PROCESSORS, True)
    x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
    rounded, scales = kernels.quantize_rows(x)
    fp8 = isinstance(weights[0], Fp8)
    plain = Around(gated=gated, pdl=True)
    of_rounded = plain._replace(scales=scales, dtype=x.dtype)

    def library(i: int) -> torch.Tensor:
        one = weights[i % len(weights)]
        return scaled_product(rounded, scales, one, x.dtype) if isinstance(one, Fp8) else one.apply(x)

    def own(i: int, product: Product, rounds: bool) -> torch.Tensor:
        return product(rounded if rounds else x, weights[i % len(weights)], of_rounded if rounds else plain)

    right = library(0).float()
    right = torch.nn.functional.silu(right[:, : n // 2]) * right[:, n // 2 :] if gated else right
    calls = {"library": library} | {
        name: partial(own, product=product, rounds=rounds) for name, product, rounds in ways(rows, n, k, fp8)
    }
    run_all(x.device, [partial(call, 0) for call in calls.values()])()
    torch.cuda.synchronize()
    told = []
    for name, call in calls.items():
        try:
            found = call(0).float()
            error = 0.0 if name == "library" else float((found - right).norm() / right.norm())
            took = graph_time(call, len(weights))
        except Exception as fault:
            print(f"{what} {name}: {type(fault).__name__}: {str(fault)[:100]}", flush=True)
            continue
        share = weights[0].weight.nbytes / took / 1e6 / read
        told.append((took, f"{name} {took * 1000:.1f} ({share:.0%}{'' if error < 0.05 else f' WRONG {error:.3f}'})"))
    print(f"{what}: " + " < ".join(text for _, text in sorted(told)[:9]), flush=True)


if __name__ == "__main__":
    main()
