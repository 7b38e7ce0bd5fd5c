"""Starting a kernel while the one before it still runs (programmatic dependent launch, compute capability 9.0 and up).

Every kernel that is launched so begins with `wait`: it lets its own successor start, and waits until all
its predecessor wrote can be seen. What a kernel reads before it has waited must be constant: weights. A kernel's end
implies that all before it have ended, since each waits, so kernels that are launched the usual way can stand between.
"""

from __future__ import annotations

import triton
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def wait():
    gdc_launch_dependents()
    gdc_wait()
