"""Starting a kernel while the one before it still runs (programmatic dependent launch, compute capability 9.0 and up).

Every kernel that is launched so begins with `begin` or `wait`: it lets its own successor start, and waits until all
its predecessor wrote can be seen. What a kernel reads before it has waited must be constant: weights. A kernel's end
implies that all before it have ended, since each waits, so kernels that are launched the usual way can stand between.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def wait():
    gdc_launch_dependents()
    gdc_wait()


@triton.jit
def begin(weight, row, low, n, k, lines: tl.constexpr):
    """`wait`; meanwhile `lines` cache lines of rows of a weight [n, k], from column `low` on, come into the L2."""
    if lines > 0:
        ask(weight, row, low, n, k, lines)
    wait()


@triton.jit
def ask(weight, row, low, n, k, lines: tl.constexpr):
    """Asks for cache lines, without waiting for them."""
    line: tl.constexpr = 1024 // weight.dtype.element_ty.primitive_bitwidth
    at = low + tl.arange(0, lines) * line
    there = (row < n)[:, None] & (at < k)[None, :]
    where = weight + row.to(tl.int64)[:, None] * k + at[None, :]
    tl.inline_asm_elementwise(
        "{ .reg .pred %p; setp.ne.s32 %p, $2, 0; @%p prefetch.global.L2 [$1]; mov.u32 $0, 0; }",
        "=r,l,r",
        [where, there.to(tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
