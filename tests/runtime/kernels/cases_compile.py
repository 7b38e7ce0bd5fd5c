"""Run by `test_against_torch.py`: every kernel, in bfloat16, as machine code for compute capability 9.0."""

from __future__ import annotations

from typing import Any

import pytest
from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from redline.runtime.kernels import (
    triton_attention,
    triton_decode_attention,
    triton_draw,
    triton_linear,
    triton_pointwise,
)

HALVES = {
    "gain",
    "qkv",
    "q_gain",
    "k_gain",
    "q",
    "k",
    "v",
    "x",
    "out",
    "weight",
    "bias",
    "residual",
    "k_pages",
    "v_pages",
    "q_out",
}
LONGS = {"positions", "slots", "ids"}
REALS = {"sums", "partial", "logs", "cos_sin", "scales", "logits", "temperature", "top_p", "min_p", "best", "mass"}
INTS = {"tiles", "starts", "seq_lens", "page_tables", "rows", "token", "position", "table", "at", "top_k", "forced"}
INTS |= {"seed_low", "seed_high", "choice", "bad", "counters"}
FLOATS = {"eps", "largest"}
ATTENTION = {"group": 4, "kv_heads": 8, "page_size": 32, "precision": "tf32", "block_n": 64}


def kind(kernel: str, name: str) -> str:
    if name == "scale":
        return "*fp32" if kernel in ("gemv_kernel", "skinny_kernel") else "fp32"
    if name == "k" and kernel in ("gemv_kernel", "skinny_kernel"):
        return "i32"
    if name == "rows" and kernel == "rms_norm_kernel":
        return "i32"
    if name in HALVES:
        return "*bf16"
    for names, found in ((LONGS, "*i64"), (REALS, "*fp32"), (INTS, "*i32"), (FLOATS, "fp32")):
        if name in names:
            return found
    return "i32"


AROUND = {"biased": False, "pdl": True}

CASES: list[tuple[Any, dict[str, Any], dict[str, str], int, int]] = [
    *(
        (
            triton_attention.attention_kernel,
            {
                **ATTENTION,
                "dim": dim,
                "block_d": dim,
                "split_up": split,
                "tiled": m > 16,
                "windowed": win,
                "block_m": m,
            },
            {},
            8 if m > 64 else 4,
            3,
        )
        for dim, split, win, m in (
            (128, True, False, 16),
            (64, False, True, 16),
            (128, False, False, 128),
            (64, True, False, 64),
        )
    ),
    *(
        (
            triton_decode_attention.decode_attention_kernel,
            {**ATTENTION, "dim": dim, "block_d": dim, "normed": normed, "split_up": split, "windowed": win}
            | {"block_m": 16, "block_n": block_n},
            {},
            4,
            3,
        )
        for dim, normed, split, win, block_n in ((128, True, True, False, 64), (64, False, False, True, 128))
    ),
    (triton_attention.join_splits_kernel, {"dim": 128, "block_s": 64, "block_d": 128}, {}, 4, 3),
    (triton_pointwise.rms_norm_kernel, {"columns": 4096, "block": 4096, "per_program": 1}, {}, 4, 3),
    (triton_pointwise.add_rms_norm_kernel, {"columns": 4096, "block": 4096}, {}, 8, 3),
    (triton_pointwise.silu_mul_kernel, {"columns": 14336, "block": 1024}, {}, 4, 3),
    (
        triton_pointwise.rope_append_kernel,
        {"q_heads": 32, "kv_heads": 8, "dim": 128, "half_block": 64, "heads_block": 16},
        {},
        4,
        3,
    ),
    (triton_pointwise.quantize_rows_kernel, {"columns": 4096, "block": 4096}, {"out": "*fp8e4nv"}, 8, 3),
    (triton_pointwise.norm_quantize_kernel, {"columns": 4096, "added": True, "block": 4096}, {"out": "*fp8e4nv"}, 8, 3),
    (triton_pointwise.silu_quantize_kernel, {"columns": 14336, "block": 16384}, {"out": "*fp8e4nv"}, 8, 3),
    *(
        (
            triton_linear.gemv_kernel,
            {**AROUND, "biased": biased, "scaled": scaled, "normed": normed, "gated": gated, "added": added}
            | {"block_n": 4, "block_k": 2048},
            {"weight": "*fp8e4nv"} if scaled else {},
            4,
            3,
        )
        for biased, scaled, normed, gated, added in (
            (True, False, True, False, False),
            (False, True, True, True, False),
            (False, False, False, False, True),
        )
    ),
    *(
        (
            triton_linear.skinny_kernel,
            {**AROUND, "scaled": rounded, "rounded": rounded, "normed": normed, "gated": gated, "added": added}
            | {"split_up": split, "block_m": m, "block_n": 64, "block_k": 256 if rounded else 128, "precision": "tf32"},
            {"weight": "*fp8e4nv", "x": "*fp8e4nv"} if rounded else {},
            4,
            3,
        )
        for m, rounded, normed, gated, added, split in (
            (16, False, True, False, False, True),
            (16, True, False, True, False, False),
            (64, True, False, False, True, True),
            (64, False, False, True, False, False),
        )
    ),
    (triton_draw.prepare_kernel, {"page_size": 32, "block": 256}, {}, 2, 3),
    (triton_draw.filter_kernel, {"block": 2048, "ways": 8}, {"out": "*i32"}, 8, 3),
    (triton_draw.part_kernel, {"block": 2048}, {"out": "*i32"}, 4, 3),
    (triton_draw.choose_kernel, {"block": 2048, "parts_block": 64}, {"out": "*i32"}, 4, 3),
]


@pytest.mark.parametrize(("kernel", "constants", "kinds", "warps", "stages"), CASES)
def test_becomes_machine_code(
    kernel: Any, constants: dict[str, Any], kinds: dict[str, str], warps: int, stages: int
) -> None:
    names = kernel.arg_names
    constants = ({"pdl": True} if "pdl" in names else {}) | constants
    signature = {
        name: "constexpr" if name in constants else kinds.get(name) or kind(kernel.__name__, name) for name in names
    }
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = [["tt.divisibility", 16]]
    attrs = {
        (i,): aligned
        for i, name in enumerate(names)
        if signature[name].startswith("*") or name in ("n", "k", "kv_stride")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attrs)
    made = compiled(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": stages})
    assert made.asm["cubin"]
    # Hopper gives a program 227 KiB
    assert made.metadata.shared <= 227 << 10
