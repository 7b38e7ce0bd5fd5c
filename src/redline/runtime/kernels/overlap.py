"""Whether kernels that start early work here: Triton, driver and CUDA graphs all have a part in it."""

from __future__ import annotations

import torch

from redline.runtime.graph import captured
from redline.runtime.kernels.triton import TritonKernels

CHAIN = 8


def why_not_overlap(device: torch.device) -> str:
    """Runs a chain of kernels, each needing the last one's result, in a graph; empty when that is what it would be
    without overlap."""
    plain, early = TritonKernels(), TritonKernels(pdl=True)
    start = torch.randn(64, 4096, device=device)
    gain = torch.rand(4096, device=device) + 0.5
    found = torch.empty_like(start)

    def chain(kernels: TritonKernels) -> torch.Tensor:
        x = start
        for _ in range(CHAIN):
            x = kernels.rms_norm(x, gain, 1e-5)
        return x

    try:
        with torch.inference_mode():
            right = chain(plain)
            graph = captured(lambda: found.copy_(chain(early)))
            for _ in range(3):
                found.zero_()
                graph.replay()
            torch.cuda.synchronize(device)
            return "" if torch.equal(found, right) else "kernels that start early gave other results here"
    except Exception as error:  # whatever it is, the usual way of starting kernels remains
        return f"{type(error).__name__}: {str(error)[:160]}"
